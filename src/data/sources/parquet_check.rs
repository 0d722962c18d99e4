//! Checks the claims of a Parquet file before the library allocates memory for them.
//!
//! The library trusts the file on how many children a schema node has and on how long a page is
//! once unpacked. This module reads the footer and the page headers by the rules of Thrift's
//! compact protocol, without keeping them, and refuses what no writer would write.

use crate::error::{Context, Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Most nodes of a schema that have children. The library follows them recursively.
const MAX_GROUPS: u64 = 1000;
/// Longest page once unpacked, and most bytes per byte of its packed form: deflate reaches 1032.
const MAX_PAGE_BYTES: u64 = 512 << 20;
const MAX_RATIO: u64 = 1100;
/// Bytes that a page may always unpack to, however short its packed form.
const SMALL_PAGE_BYTES: u64 = 16 << 20;
/// Longest footer and page header.
const MAX_FOOTER_BYTES: u64 = 256 << 20;
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Most pages of a column without bytes and values: a dictionary and a page of values.
const MAX_EMPTY_PAGES: u64 = 2;
/// Levels of structs and lists in a footer.
const MAX_DEPTH: usize = 24;

/// The place and the length of the pages of one column in one row group.
pub struct Chunk {
    pub start: i64,
    pub n_bytes: i64,
}

/// Checks the schema in the footer.
pub fn check_footer(file: &mut File) -> Result<()> {
    let n_bytes = file.seek(SeekFrom::End(0))?;
    let not_parquet = || Error::new("not a Parquet table: it does not end in PAR1");
    let end = read_at(file, n_bytes.checked_sub(8).ok_or_else(not_parquet)?, 8)?;
    crate::ensure!(end.ends_with(b"PAR1"), "{}", not_parquet());
    let n_footer = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    crate::ensure!(
        n_footer + 12 <= n_bytes && n_footer <= MAX_FOOTER_BYTES,
        "the Parquet table is damaged: it claims a footer of {n_footer} bytes"
    );
    let footer = read_at(file, n_bytes - 8 - n_footer, n_footer)?;
    let (mut n_groups, mut n_children) = (0, 0u64);
    let mut note = |path: &[i16], value: i64| {
        if path == [2, 5] && value != 0 {
            n_groups += 1;
            n_children = n_children.saturating_add(value as u64);
        }
    };
    Compact { rest: &footer }.structure(&mut Vec::new(), &mut note).context("reading the footer of the table")?;
    crate::ensure!(
        n_groups <= MAX_GROUPS && n_children <= n_footer,
        "the table's schema has {n_groups} groups with {n_children} columns, which is not supported"
    );
    Ok(())
}

/// Sizes that the pages of a column in a row group claim.
#[derive(Debug, Default)]
pub struct Claims {
    pub n_values: u64,
    /// Bytes of the dictionary once unpacked, at least those of its longest entry.
    pub n_dictionary: u64,
}

/// Checks the headers of all pages of a column in a row group.
pub fn check_pages(file: &mut File, chunk: &Chunk) -> Result<Claims> {
    let damaged = || Error::new("the Parquet table is damaged: a page lies outside of its file");
    let mut at = u64::try_from(chunk.start).map_err(|_| damaged())?;
    let end = at.checked_add(u64::try_from(chunk.n_bytes).map_err(|_| damaged())?).ok_or_else(damaged)?;
    crate::ensure!(end <= file.seek(SeekFrom::End(0))?, "{}", damaged());
    let (mut claims, mut n_empty) = (Claims::default(), 0);
    while at < end {
        let page =
            [1 << 12, MAX_HEADER_BYTES].into_iter().find_map(|most| page(file, at, most.min(end - at)).transpose());
        let page = page.ok_or_else(damaged)??;
        let most = SMALL_PAGE_BYTES.saturating_add(MAX_RATIO.saturating_mul(page.n_packed)).min(MAX_PAGE_BYTES);
        crate::ensure!(
            page.n_unpacked <= most && page.n_values <= page.n_unpacked.max(1 << 24),
            "a page of {} bytes claims to unpack to {} bytes and {} values: write the table with smaller pages",
            page.n_packed,
            page.n_unpacked,
            page.n_values
        );
        n_empty += u64::from(page.n_packed == 0 && page.n_values == 0);
        crate::ensure!(n_empty <= MAX_EMPTY_PAGES, "the Parquet table is damaged: a column has many empty pages");
        if page.is_dictionary {
            claims.n_dictionary = claims.n_dictionary.max(page.n_unpacked);
        } else {
            claims.n_values = claims.n_values.saturating_add(page.n_values);
        }
        at = at.saturating_add(page.n_header).saturating_add(page.n_packed);
    }
    Ok(claims)
}

/// What the header of a page claims.
struct Page {
    n_header: u64,
    n_packed: u64,
    n_unpacked: u64,
    n_values: u64,
    is_dictionary: bool,
}

/// The page at `at`, whose header has at most `most` bytes. `None` if the header is longer.
fn page(file: &mut File, at: u64, most: u64) -> Result<Option<Page>> {
    let bytes = read_at(file, at, most)?;
    let mut page = Page { n_header: 0, n_packed: 0, n_unpacked: 0, n_values: 0, is_dictionary: false };
    let mut is_negative = false;
    let mut note = |path: &[i16], value: i64| {
        page.is_dictionary |= path == [7, 1];
        let place = match path {
            [2] => &mut page.n_unpacked,
            [3] => &mut page.n_packed,
            [5 | 7 | 8, 1] => &mut page.n_values,
            _ => return,
        };
        is_negative |= value < 0;
        *place = value.max(0) as u64;
    };
    let mut header = Compact { rest: &bytes };
    if header.structure(&mut Vec::new(), &mut note).is_err() {
        return Ok(None);
    }
    crate::ensure!(!is_negative, "the Parquet table is damaged: a page has a negative length");
    page.n_header = (bytes.len() - header.rest.len()) as u64;
    Ok(Some(page))
}

fn read_at(file: &mut File, at: u64, n: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(n).read_to_end(&mut bytes)?;
    crate::ensure!(bytes.len() as u64 == n, "the file ends early");
    Ok(bytes)
}

/// Called with the field numbers down to an integer, and its value.
type Note<'a> = &'a mut dyn FnMut(&[i16], i64);

/// Bytes in Thrift's compact protocol.
struct Compact<'a> {
    rest: &'a [u8],
}

impl Compact<'_> {
    fn bytes(&mut self, n: u64) -> Result<&[u8]> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.rest.len());
        let (bytes, rest) = self.rest.split_at(n.ok_or_else(|| Error::new("a value continues past the end"))?);
        self.rest = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::new("a number has more than 64 bits"))
    }

    fn integer(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn structure(&mut self, path: &mut Vec<i16>, note: Note<'_>) -> Result<()> {
        crate::ensure!(path.len() < MAX_DEPTH, "structs are nested too deeply");
        path.push(0);
        loop {
            let (delta, kind) = match self.byte()? {
                0 => break,
                byte => (i16::from(byte >> 4), byte & 15),
            };
            let last = path.last_mut().expect("the path has this field");
            *last = match delta {
                0 => self.integer()? as i16,
                delta => last.wrapping_add(delta),
            };
            self.value(kind, false, path, note)?;
        }
        path.pop();
        Ok(())
    }

    fn value(&mut self, kind: u8, is_element: bool, path: &mut Vec<i16>, note: Note<'_>) -> Result<()> {
        match kind {
            1 | 2 if !is_element => {}
            1..=3 => drop(self.byte()?),
            4..=6 => note(path, self.integer()?),
            7 => drop(self.bytes(8)?),
            8 => {
                let n = self.varint()?;
                self.bytes(n)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let n = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.elements(n, &[head & 15], path, note)?;
            }
            11 => {
                let n = self.varint()?;
                let kinds = if n == 0 { 0 } else { self.byte()? };
                self.elements(n, &[kinds >> 4, kinds & 15], path, note)?;
            }
            12 => self.structure(path, note)?,
            kind => crate::bail!("a value has the unknown type {kind}"),
        }
        Ok(())
    }

    /// The elements of a list, or the keys and values of a map. Every element has a byte.
    fn elements(&mut self, n: u64, kinds: &[u8], path: &mut Vec<i16>, note: Note<'_>) -> Result<()> {
        crate::ensure!(n <= self.rest.len() as u64, "a list claims more elements than there are bytes");
        crate::ensure!(path.len() < MAX_DEPTH, "lists are nested too deeply");
        for _ in 0..n {
            for &kind in kinds {
                self.value(kind, true, path, note)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn with_footer(footer: &[u8]) -> File {
        file(&[b"PAR1", footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat())
    }

    #[test]
    fn schemas_that_claim_too_much_are_refused() {
        // Field 2, a list of one struct whose field 5 is the number of children.
        let schema = |n: &[u8]| [&[0x29, 0x1C, 0x55], n, &[0, 0]].concat();
        check_footer(&mut with_footer(&schema(&[2]))).unwrap();
        let e = check_footer(&mut with_footer(&schema(&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F]))).unwrap_err().to_string();
        assert!(e.contains("2147483647 columns"), "{e}");
        let lists = [0x19; 64];
        assert!(check_footer(&mut with_footer(&lists)).is_err());
        assert!(check_footer(&mut with_footer(&[0x28, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F])).is_err());
        assert!(check_footer(&mut file(b"PAR1")).unwrap_err().to_string().contains("not a Parquet table"));
    }

    #[test]
    fn pages_that_claim_too_much_are_refused() {
        // Fields 1 to 3: type, unpacked length, packed length; then a data page with its number of values.
        let page = |unpacked: &[u8]| [&[0x15, 0, 0x15], unpacked, &[0x15, 4, 0x2C, 0x15, 6, 0, 0, b'a', b'b']].concat();
        let check = |bytes: &[u8], n: usize| {
            check_pages(&mut file(bytes), &Chunk { start: 0, n_bytes: n as i64 }).map_err(|e| e.to_string())
        };
        let good = page(&[20]);
        check(&good, good.len()).unwrap();
        check(&[good.clone(), good.clone()].concat(), 2 * good.len()).unwrap();
        let bad = page(&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F]);
        assert!(check(&bad, bad.len()).unwrap_err().contains("2147483647 bytes"));
        assert!(check(&page(&[1]), 12).unwrap_err().contains("negative"));
        assert!(check(&good, 5).unwrap_err().contains("damaged"));
        assert!(check(&good, 999).unwrap_err().contains("outside"));
        let long = [&[0x15, 0, 0x15, 20, 0x15][..], &[0xFE; 9], &[0x01, 0x2C, 0x15, 6, 0, 0]].concat();
        let _ = check(&long, long.len()); // must not overflow
        let empty = [0x15, 0, 0x15, 0, 0x15, 0, 0x2C, 0x15, 0, 0, 0];
        assert_eq!(check(&empty.repeat(2), 22).unwrap().n_values, 0);
        assert!(check(&empty.repeat(3), 33).unwrap_err().contains("empty pages"));
        let dictionary = [0x15, 4, 0x15, 20, 0x15, 4, 0x4C, 0x15, 6, 0, 0, b'a', b'b'];
        let claims = check(&[&dictionary[..], &good].concat(), 13 + good.len()).unwrap();
        assert_eq!((claims.n_values, claims.n_dictionary), (3, 10));
    }
}
