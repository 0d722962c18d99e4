//! Tests of reading documents: small files built here, damaged ones and bombs.

use std::io::{Cursor, Write};
use std::path::Path;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::document::Document;
use super::found::MAX_TEXT;
use super::read::read_document;

fn read(bytes: &[u8], name: &str) -> Result<Document, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read_document(Path::new(&path)).map_err(|e| e.to_string())
}

fn text(bytes: &[u8]) -> String {
    read(bytes, "book.txt").unwrap().text.to_string()
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes, "book").expect_err("refused")
}

#[test]
fn texts_are_read_in_unicode() {
    let utf16 = |mark: u16, big: bool| -> Vec<u8> {
        let units = std::iter::once(mark).chain("Ahab, né 🐋".encode_utf16());
        units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    assert_eq!(text(&utf16(0xFEFF, false)), "Ahab, né 🐋");
    assert_eq!(text(&utf16(0xFEFF, true)), "Ahab, né 🐋");
    assert_eq!(text("\u{feff}né\r\n".as_bytes()), "né\r\n");
    let document = read(b"# One\n", "notes.md").unwrap();
    assert_eq!((document.name.as_str(), &*document.text, document.note.as_str()), ("notes.md", "# One\n", ""));
    for bytes in [&b"n\xE9"[..], b"n\0o\0", b"\xFF\xD8\xFF"] {
        assert!(refusal(bytes).contains("save it as UTF-8"), "{}", refusal(bytes));
    }
    for bytes in [&b"\xFF\xFEn\0o"[..], b"\xFF\xFE\x00\xD8n\0"] {
        assert!(refusal(bytes).contains("damaged"), "{}", refusal(bytes));
    }
    assert!(refusal(b" \n").ends_with("has no text"));
    assert!(refusal(b"\xD0\xCF\x11\xE0\xA1\xB1").contains("save it as .docx"));
    assert!(refusal(b"{\\rtf1 Ahab}").contains("save it as .docx"));
    assert!(refusal(&vec![b'a'; MAX_TEXT + 1]).contains("more than the 16 MiB"));
}

/// A PDF with these objects, numbered from 1; the first is the catalog.
fn pdf(objects: &[String], trailer: &str) -> Vec<u8> {
    let mut bytes = b"%PDF-1.4\n".to_vec();
    let mut offsets = Vec::new();
    for (i, object) in objects.iter().enumerate() {
        offsets.push(bytes.len());
        bytes.extend(format!("{} 0 obj\n{object}\nendobj\n", i + 1).bytes());
    }
    let start = bytes.len();
    bytes.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).bytes());
    offsets.iter().for_each(|at| bytes.extend(format!("{at:010} 00000 n \n").bytes()));
    let size = objects.len() + 1;
    bytes.extend(format!("trailer\n<< /Size {size} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n").bytes());
    bytes
}

fn stream(dictionary: &str, content: &str) -> String {
    format!("<< {dictionary} /Length {} >>\nstream\n{content}\nendstream", content.len())
}

/// The objects of a PDF with one page for each content. Forms follow the pages; pages and forms draw
/// them by the names F0, F1 and so on.
fn pages(contents: &[&str], forms: &[&str]) -> Vec<String> {
    let n = contents.len();
    let kids: String = (0..n).map(|i| format!("{} 0 R ", 4 + 2 * i)).collect();
    let xobjects: String = (0..forms.len()).map(|i| format!("/F{i} {} 0 R ", 4 + 2 * n + i)).collect();
    let resources = format!("/Resources << /Font << /A 3 0 R >> /XObject << {xobjects}>> >>");
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_string(),
        format!("<< /Type /Pages /Kids [{kids}] /Count {n} /MediaBox [0 0 612 792] {resources} >>"),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_string(),
    ];
    for (i, content) in contents.iter().enumerate() {
        objects.push(format!("<< /Type /Page /Parent 2 0 R /Contents {} 0 R >>", 5 + 2 * i));
        objects.push(stream("", content));
    }
    let form = format!("/Type /XObject /Subtype /Form /BBox [0 0 612 792] {resources}");
    objects.extend(forms.iter().map(|content| stream(&form, content)));
    objects
}

const LINES: &str = "BT /A 12 Tf 72 720 Td (Call me Ishmael.) Tj 0 -14 Td (Some years ago) Tj ET";

#[test]
fn the_text_layer_of_a_pdf_is_read_page_by_page() {
    let document = read(&pdf(&pages(&[LINES], &[]), ""), "moby.pdf").unwrap();
    assert_eq!((&*document.text, document.note.as_str()), ("Call me Ishmael.\nSome years ago", "text layer only"));
    let second = "BT /A 12 Tf 72 720 Td (Ahab) Tj ET";
    let document = read(&pdf(&pages(&[LINES, "", second, "0 0 m"], &[]), ""), "moby.pdf").unwrap();
    assert_eq!(&*document.text, "Call me Ishmael.\nSome years ago\n\nAhab");
    assert_eq!(document.note, "text layer only, 2 of 4 pages have no text");
    // Text in a form counts; a form that draws itself is left out.
    let document = read(&pdf(&pages(&["/F0 Do"], &[second]), ""), "moby.pdf").unwrap();
    assert_eq!(&*document.text, "Ahab");
    let endless = format!("{second} /F0 Do");
    let document = read(&pdf(&pages(&["/F0 Do", LINES], &[&endless]), ""), "moby.pdf").unwrap();
    assert_eq!(&*document.text, "Call me Ishmael.\nSome years ago");
    let scan = refusal(&pdf(&pages(&["0 0 m", ""], &[]), ""));
    assert!(scan.contains("no text layer") && scan.contains("OCR"), "{scan}");
}

#[test]
fn damaged_and_protected_pdfs_are_refused() {
    let whole = pdf(&pages(&[LINES, LINES], &[]), "");
    for n in [10, 60, whole.len() / 2] {
        assert!(refusal(&whole[..n]).contains("is damaged"), "{n}: {}", refusal(&whole[..n]));
    }
    // A page without a size makes the library panic; the other pages are read.
    let mut objects = pages(&[LINES, LINES], &[]);
    objects[1] = objects[1].replace("/MediaBox [0 0 612 792]", "");
    objects[3] = objects[3].replace("/Type /Page ", "/Type /Page /MediaBox [0 0 612 792] ");
    let document = read(&pdf(&objects, ""), "moby.pdf").unwrap();
    assert_eq!(document.note, "text layer only, 1 of 2 pages could not be read");
    assert_eq!(&*document.text, "Call me Ishmael.\nSome years ago");
    // A page that is its own ancestor.
    objects[1] = objects[1].replace("/Type /Pages", "/Type /Pages /Parent 2 0 R").replace("/Resources", "/Other");
    assert!(refusal(&pdf(&objects, "")).contains("is damaged"));
    // Every byte may be wrong.
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        let _ = read(&bytes, "moby.pdf");
    }
    let key = "ab".repeat(32);
    let encrypt = format!("/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{key}> /U <{key}> >> /ID [<00> <00>]");
    let protected = refusal(&pdf(&pages(&[LINES], &[]), &encrypt));
    assert!(protected.contains("protected by a password"), "{protected}");
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn docx(body: &str, notes: &str) -> Vec<u8> {
    let root = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:X xmlns:w="urn:w">"#;
    let whole = |inner: &str| format!("{root}{inner}</w:X>");
    archive(&[("word/document.xml", whole(body).as_bytes()), ("word/footnotes.xml", whole(notes).as_bytes())])
}

#[test]
fn word_documents_become_lines() {
    let run = |text: &str| format!("<w:r><w:t xml:space=\"preserve\">{text}</w:t></w:r>");
    let paragraph = |inner: &str| format!("<w:p>{inner}</w:p>");
    let stops = "<w:pPr><w:tabs><w:tab w:val=\"left\"/></w:tabs></w:pPr>";
    let cell = |text: &str| format!("<w:tc>{}{}</w:tc>", paragraph(&run(text)), paragraph(&run("2")));
    let note = |id: i32| format!("<w:r><w:footnoteReference w:id=\"{id}\"/></w:r>");
    let body = [
        paragraph(&[stops, &run("Call "), &run("me &lt;Ishmael&gt; &amp; &#233;&#x1F40B;."), &note(7)].concat()),
        paragraph("<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r><w:r><w:t>\u{e9}</w:t></w:r>"),
        paragraph("<w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:r><w:instrText>PAGE</w:instrText></w:r>"),
        format!("<w:tbl><w:tr>{}{}</w:tr><w:tr>{}</w:tr></w:tbl>", cell("x"), cell("y"), cell("z")),
        paragraph(&[run("End"), note(2), format!("<w:moveFrom>{}</w:moveFrom>", run("moved"))].concat()),
    ];
    let notes = [
        "<w:footnote w:type=\"separator\" w:id=\"-1\"><w:p/></w:footnote>".to_string(),
        format!("<w:footnote w:id=\"2\">{}</w:footnote>", paragraph(&run(" second"))),
        format!("<w:footnote w:id=\"7\">{}{}</w:footnote>", paragraph(&run("first")), paragraph(&run("&amp; more"))),
    ];
    let document = read(&docx(&body.concat(), &notes.concat()), "moby.docx").unwrap();
    let expected = "Call me <Ishmael> & é🐋.[1]\na\tb\ncé\n\nx 2\ty 2\nz 2\nEnd[2]\n\n[1] first & more\n[2] second";
    assert_eq!((&*document.text, document.note.as_str()), (expected, ""));
}

#[test]
fn bad_archives_are_refused_without_taking_the_memory() {
    assert!(refusal(&archive(&[("sheet.xml", b"<a/>")])).contains("not a Word document"));
    let whole = docx("<w:p><w:r><w:t>Call me Ishmael.</w:t></w:r></w:p>", "");
    assert!(refusal(&whole[..whole.len() - 30]).contains("damaged"));
    assert!(refusal(&docx("<w:p><w:r><w:t>a</w:p>", "")).contains("damaged"));
    assert!(refusal(&docx("<w:p><w:r><w:t>&unknown;</w:t></w:r></w:p>", "")).contains("damaged"));
    assert!(refusal(&docx("<w:p/>", "")).ends_with("has no text"));
    // Spaces of 300 MiB in 300 KiB.
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("word/document.xml", SimpleFileOptions::default().compression_level(Some(1))).unwrap();
    let piece = vec![b' '; 1 << 20];
    (0..300).for_each(|_| writer.write_all(&piece).unwrap());
    let bomb = writer.finish().unwrap().into_inner();
    assert!(bomb.len() < 4 << 20 && refusal(&bomb).contains("more than 16 MiB of text"), "{}", bomb.len());
}
