//! Makes the streams of a PDF safe to read: pictures, streams that unpack without end, and forms that
//! draw themselves.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;

use flate2::read::ZlibDecoder;
use pdf_extract::content::Content;
use pdf_extract::{Dictionary, Document, Object, ObjectId, Stream};

/// Forms may draw forms this deep.
const MAX_DEPTH: usize = 16;
/// Most bytes that a stream may unpack to.
const MAX_UNPACKED: u64 = 64 << 20;
/// Most bytes of a stream in LZW, which unpacks to a few thousand times as many at worst.
const MAX_LZW: usize = 256 << 10;

/// Empties a stream that holds a picture, which the library would unpack and read as commands, or that
/// unpacks to too many bytes. The library calls it with each object that it reads, before it unpacks
/// it, and drops what it returns for a stream.
pub fn tame(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    let Object::Stream(stream) = object else { return Some((id, object.clone())) };
    if has_subtype(stream, b"Image") || is_bomb(stream) {
        empty(stream);
    }
    Some((id, Object::Null))
}

fn is_bomb(stream: &Stream) -> bool {
    let filters = stream.filters().unwrap_or_default();
    let n_packed = filters.iter().filter(|filter| [&b"FlateDecode"[..], b"LZWDecode"].contains(filter)).count();
    n_packed > 1
        || filters.contains(&&b"LZWDecode"[..]) && stream.content.len() > MAX_LZW
        || filters.contains(&&b"FlateDecode"[..]) && inflates_beyond(&stream.content, MAX_UNPACKED)
}

/// Whether a zlib stream unpacks to more than so many bytes.
fn inflates_beyond(zlib: &[u8], most: u64) -> bool {
    let (mut unpacked, mut n, mut piece) = (ZlibDecoder::new(zlib).take(most + 1), 0, vec![0; 1 << 16]);
    while let Ok(read @ 1..) = unpacked.read(&mut piece) {
        n += read as u64;
    }
    n > most
}

/// Empties forms that draw themselves or are nested too deeply.
pub fn cut_endless_forms(document: &mut Document) {
    let is_form = |object: &Object| object.as_stream().is_ok_and(|stream| has_subtype(stream, b"Form"));
    let ids: Vec<ObjectId> = document.objects.iter().filter(|(_, object)| is_form(object)).map(|(&id, _)| id).collect();
    let drawn: HashMap<ObjectId, BTreeSet<ObjectId>> = ids.iter().map(|&id| (id, drawn_by(document, id))).collect();
    // After each round, the forms that are left draw forms one level deeper.
    let mut deep: BTreeSet<ObjectId> = ids.into_iter().collect();
    for _ in 0..MAX_DEPTH {
        deep = deep.iter().filter(|id| drawn[id].iter().any(|form| deep.contains(form))).copied().collect();
    }
    for id in deep {
        if let Some(Object::Stream(stream)) = document.objects.get_mut(&id) {
            empty(stream);
        }
    }
}

fn has_subtype(stream: &Stream, subtype: &[u8]) -> bool {
    stream.dict.get(b"Subtype").and_then(Object::as_name).is_ok_and(|name| name == subtype)
}

fn empty(stream: &mut Stream) {
    stream.content.clear();
    stream.dict.remove(b"Filter");
}

/// The forms that a form draws. One without resources of its own draws with those of its caller;
/// it counts as drawing itself if it draws anything.
fn drawn_by(document: &Document, id: ObjectId) -> BTreeSet<ObjectId> {
    let Some(stream) = document.objects.get(&id).and_then(|object| object.as_stream().ok()) else {
        return BTreeSet::new();
    };
    let bytes = stream.decompressed_content().unwrap_or_else(|_| stream.content.clone());
    let Ok(content) = Content::decode(&bytes) else { return BTreeSet::new() };
    let names = content.operations.iter().filter(|o| o.operator == "Do").filter_map(|o| o.operands.first());
    let dictionary = |of: &Dictionary, key: &[u8]| -> Option<Dictionary> {
        let object = of.get(key).ok()?;
        document.dereference(object).ok().and_then(|(_, object)| object.as_dict().ok().cloned())
    };
    let forms = dictionary(&stream.dict, b"Resources").map(|of| dictionary(&of, b"XObject").unwrap_or_default());
    let target = |name: &Object| match &forms {
        None => Some(id),
        Some(forms) => forms.get(name.as_name().ok()?).and_then(Object::as_reference).ok(),
    };
    names.filter_map(target).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// A zlib stream of so many zeros.
    fn zeros(n: usize) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&vec![0; n]).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn streams_that_unpack_to_too_much_are_emptied() {
        let packed = zeros(1 << 20);
        assert!(packed.len() < 1 << 16);
        assert!(inflates_beyond(&packed, (1 << 20) - 1) && !inflates_beyond(&packed, 1 << 20));
        assert!(!inflates_beyond(b"no zlib", 1) && !inflates_beyond(b"", 1));
        let tamed = |filters: &[&[u8]], content: &[u8], subtype: &[u8]| {
            let mut dictionary = Dictionary::new();
            dictionary.set("Filter", filters.iter().map(|&filter| Object::Name(filter.to_vec())).collect::<Vec<_>>());
            dictionary.set("Subtype", Object::Name(subtype.to_vec()));
            let mut object = Object::Stream(Stream::new(dictionary, content.to_vec()));
            assert_eq!(tame((1, 0), &mut object), Some(((1, 0), Object::Null)));
            object.as_stream().unwrap().content.is_empty()
        };
        assert!(!tamed(&[b"FlateDecode"], &packed, b"Form"));
        assert!(tamed(&[b"FlateDecode"], &zeros((64 << 20) + 1), b"Form"));
        assert!(tamed(&[b"FlateDecode", b"FlateDecode"], &packed, b"Form"));
        assert!(tamed(&[b"LZWDecode"], &vec![0; MAX_LZW + 1], b"Form") && !tamed(&[b"LZWDecode"], b"a", b"Form"));
        assert!(tamed(&[b"DCTDecode"], b"a", b"Image"));
        assert_eq!(tame((2, 0), &mut Object::Integer(3)), Some(((2, 0), Object::Integer(3))));
    }
}
