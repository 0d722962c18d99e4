//! GGUF models that are split over several files: which part a file is, and where the others lie.
//!
//! llama.cpp splits a model into NAME-00001-of-00003.gguf, NAME-00002-of-00003.gguf and so on. The
//! first part has all metadata; every part has its number in `split.no` and some of the tensors.
//! [`Gguf::open`](super::gguf::Gguf::open) reads the set from its first part.

use super::gguf_metadata::Metadata;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// The place of a file in a split model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Number of this part, from 0.
    pub no: u64,
    /// Number of parts.
    pub count: u64,
}

impl Split {
    /// Reads the keys. `None` for a model in one file.
    pub fn read(metadata: &Metadata) -> Result<Option<Self>> {
        let number = |key: &str| if metadata.contains(key) { metadata.u64(key).map(Some) } else { Ok(None) };
        let count = number("split.count")?.unwrap_or(1);
        if count <= 1 {
            return Ok(None);
        }
        crate::ensure!(count <= u64::from(u16::MAX), "split.count: expected at most {}, found {count}", u16::MAX);
        let Some(no) = number("split.no")? else {
            crate::bail!("GGUF metadata has split.count {count}, but no key 'split.no'")
        };
        crate::ensure!(no < count, "split.no: expected a number below split.count ({count}), found {no}");
        Ok(Some(Self { no, count }))
    }

    /// The paths of the other parts, in order. `path` is the first part.
    ///
    /// Fails if the file is another part, or if its name does not say where the others lie.
    pub fn others(self, path: &Path) -> Result<Vec<PathBuf>> {
        let Self { no, count } = self;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.strip_suffix(&ending(no, count));
        if no != 0 {
            let first = match stem {
                Some(stem) => format!("{stem}{}", ending(0, count)),
                None => format!("the file with split.no 0, whose name ends in {}", ending(0, count)),
            };
            crate::bail!("it is part {} of {count} of a split model: open its first part, {first}", no + 1)
        }
        let Some(stem) = stem else {
            crate::bail!(
                "it is part 1 of {count} of a split model, and the parts are found by name: expected a name that ends \
                 in {}; rename the parts as they were",
                ending(0, count)
            )
        };
        Ok((1..count).map(|no| path.with_file_name(format!("{stem}{}", ending(no, count)))).collect())
    }

    /// Fails if the file `path` with this metadata is not part `no` of the same set.
    pub fn check_part(self, no: u64, metadata: &Metadata, path: &Path) -> Result<()> {
        let found = Self::read(metadata)?;
        crate::ensure!(
            found == Some(Self { no, ..self }),
            "{}: expected part {} of {} of a split model, found {}; download the parts again",
            path.display(),
            no + 1,
            self.count,
            found.map_or("a file that is no part".into(), |s| format!("part {} of {}", s.no + 1, s.count))
        );
        Ok(())
    }
}

/// The end of the name of a part.
fn ending(no: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", no + 1)
}

#[cfg(test)]
mod tests {
    use crate::formats::gguf::testing::gguf_bytes;
    use crate::formats::gguf::{Gguf, Value};
    use crate::formats::host_tensor::HostTensor;

    /// One part of a model of `count` parts with a tensor of its own, named after its number.
    fn part(no: u64, count: u64, tensors: u64) -> Vec<u8> {
        let keys = [
            ("split.no", Value::U64(no)),
            ("split.count", Value::U64(count)),
            ("split.tensors.count", Value::U64(tensors)),
            ("only.in.the.first", Value::U64(7)),
        ];
        let n = if no == 0 { 4 } else { 3 };
        gguf_bytes(&keys[..n], &[(&format!("t{no}"), HostTensor::from_f32(&[1], &[no as f32]))])
    }

    /// A folder with these files.
    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
        dir
    }

    fn error(files: &[(&str, Vec<u8>)]) -> String {
        let dir = folder(files);
        Gguf::open(&dir.path().join(files[0].0)).err().expect("must be refused").to_string()
    }

    const NAMES: [&str; 3] = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];

    #[test]
    fn a_set_is_read_from_its_first_part() {
        let dir = folder(&[(NAMES[0], part(0, 3, 3)), (NAMES[1], part(1, 3, 3)), (NAMES[2], part(2, 3, 3))]);
        let gguf = Gguf::open(&dir.path().join(NAMES[0])).unwrap();
        assert_eq!(gguf.tensors().map(|(name, _)| name).collect::<Vec<_>>(), ["t0", "t1", "t2"]);
        for no in 0..3 {
            assert_eq!(gguf.read(&format!("t{no}")).unwrap().to_f32().unwrap(), [no as f32]);
        }
        assert_eq!(gguf.metadata.u64("only.in.the.first").unwrap(), 7);
    }

    #[test]
    fn other_and_missing_parts_are_named() {
        let first = (NAMES[0], part(0, 3, 3));
        let e = error(&[(NAMES[1], part(1, 3, 3)), first.clone()]);
        assert!(e.contains("part 2 of 3") && e.contains(NAMES[0]), "{e}");
        let e = error(&[("x.gguf", part(2, 3, 3))]);
        assert!(e.contains("part 3 of 3") && e.contains("-00001-of-00003.gguf"), "{e}");
        let e = error(&[("renamed.gguf", part(0, 3, 3))]);
        assert!(e.contains("part 1 of 3") && e.contains("-00001-of-00003.gguf"), "{e}");
        let e = error(&[first.clone(), (NAMES[1], part(1, 3, 3))]);
        assert!(e.contains("part 3 of 3") && e.contains(NAMES[2]), "{e}");
        let e = error(&[first.clone(), (NAMES[1], part(2, 3, 3)), (NAMES[2], part(2, 3, 3))]);
        assert!(e.contains("expected part 2 of 3") && e.contains("found part 3 of 3"), "{e}");
        let e = error(&[first.clone(), (NAMES[1], gguf_bytes(&[], &[]))]);
        assert!(e.contains("no part"), "{e}");
    }

    #[test]
    fn the_tensors_of_a_set_are_complete_and_different() {
        let e = error(&[("m-00001-of-00002.gguf", part(0, 2, 5)), ("m-00002-of-00002.gguf", part(1, 2, 5))]);
        assert!(e.contains("split.tensors.count") && e.contains('5') && e.contains('2'), "{e}");
        let twice = [("split.no", Value::U64(1)), ("split.count", Value::U64(2))];
        let twice = gguf_bytes(&twice, &[("t0", HostTensor::from_f32(&[1], &[0.0]))]);
        let e = error(&[("m-00001-of-00002.gguf", part(0, 2, 2)), ("m-00002-of-00002.gguf", twice)]);
        assert!(e.contains("'t0'") && e.contains("two parts"), "{e}");
    }

    #[test]
    fn impossible_numbers_are_refused() {
        let keys = |pairs: &[(&str, u64)]| {
            let pairs: Vec<_> = pairs.iter().map(|(key, n)| (*key, Value::U64(*n))).collect();
            error(&[("m-00001-of-00002.gguf", gguf_bytes(&pairs, &[]))])
        };
        assert!(keys(&[("split.count", 2)]).contains("split.no"));
        assert!(keys(&[("split.no", 2), ("split.count", 2)]).contains("below split.count (2)"));
        assert!(keys(&[("split.no", 0), ("split.count", 1 << 40)]).contains("65535"));
        let alone = gguf_bytes(&[("split.no", Value::U64(0)), ("split.count", Value::U64(1))], &[]);
        Gguf::open(&folder(&[("m.gguf", alone)]).path().join("m.gguf")).unwrap();
    }
}
