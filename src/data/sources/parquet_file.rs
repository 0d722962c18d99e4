//! Parquet tables: each row is an object, and lists of structs become lists of objects.
//!
//! Only the known columns are read. A struct has no absent fields in this format, so fields of
//! structs that are null are left out.

use super::parquet_check::{self, Chunk};
use super::record::{Content, Each, Place};
use crate::data::fields;
use crate::error::{Context, Error, Result};
use bytes::Bytes;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{AsBytes, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::{ColumnDescriptor, Type, TypePtr};
use serde_json::{Map, Value as Json};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Most values in the lists of a row group, unless the file is long.
const MAX_VALUES: u64 = 1 << 26;
/// Most bytes of a column in a row group, by the length of its dictionary, whose rows are not
/// weighed one by one. A dictionary can make a short file unpack to very long rows.
const MAX_UNWEIGHED_BYTES: u64 = 4 << 30;
/// Most bytes of a column in a row.
const MAX_ROW_BYTES: usize = 256 << 20;

/// Reads a table row by row.
pub fn read(file: BufReader<File>, each: Each<'_>) -> Result<()> {
    let mut file = file.into_inner();
    parquet_check::check_footer(&mut file)?;
    let mut pages = file.try_clone()?;
    let reader = guarded(|| SerializedFileReader::new(Strict(file)))?;
    let schema = reader.metadata().file_metadata().schema();
    let is_known = |field: &TypePtr| fields::column(field.name()).is_some();
    let columns: Vec<_> = schema.get_fields().iter().filter(|field| is_known(field)).cloned().collect();
    if columns.is_empty() {
        let names: Vec<_> = schema.get_fields().iter().map(|field| field.name()).take(20).collect();
        crate::bail!("the table has the columns [{}], and none of {}", names.join(", "), fields::names());
    }
    check_columns(&mut pages, &reader)?;
    let mut rows = guarded(|| {
        let projection = Type::group_type_builder(schema.name()).with_fields(columns).build()?;
        reader.get_row_iter(Some(projection))
    })?;
    for number in 1.. {
        let Some(row) = guarded(|| rows.next().transpose()).with_context(|| format!("row {number}"))? else { break };
        let object = object(&row, true).with_context(|| format!("row {number}"))?;
        let text = serde_json::to_vec(&object).context("writing a row as JSON")?;
        each(Place::Row(number), Content::Json(&text))?;
    }
    Ok(())
}

/// A file whose end is an error for whoever reads on. The library skips what it does not know in a
/// page header without a look at the end, and a header can claim lists of billions of elements.
struct Strict(File);

/// Reads a [`Strict`] file.
struct StrictRead(BufReader<File>);

impl Read for StrictRead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the table ends early")),
            n => Ok(n),
        }
    }
}

impl Length for Strict {
    fn len(&self) -> u64 {
        Length::len(&self.0)
    }
}

impl ChunkReader for Strict {
    type T = StrictRead;

    fn get_read(&self, start: u64) -> std::result::Result<StrictRead, ParquetError> {
        self.0.get_read(start).map(StrictRead)
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        self.0.get_bytes(start, length)
    }
}

/// Checks the pages of the known columns, and that no row is longer than a file of this length
/// may have: the library builds a row whole.
fn check_columns(pages: &mut File, reader: &SerializedFileReader<Strict>) -> Result<()> {
    let n_file = pages.metadata().context("asking for the length of the table")?.len();
    let mut n_bytes = 0u64;
    for (g, group) in reader.metadata().row_groups().iter().enumerate() {
        let mut n_values = 0u64;
        for (c, column) in group.columns().iter().enumerate() {
            if column.column_path().parts().first().is_none_or(|name| fields::column(name).is_none()) {
                continue;
            }
            n_bytes = n_bytes.saturating_add(u64::try_from(column.compressed_size()).unwrap_or(u64::MAX));
            crate::ensure!(n_bytes <= n_file, "the Parquet table is damaged: its columns lie outside of its file");
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let chunk = Chunk { start, n_bytes: column.compressed_size() };
            let claims = parquet_check::check_pages(pages, &chunk)?;
            if column.column_descr().max_rep_level() == 0 {
                continue;
            }
            n_values = n_values.saturating_add(claims.n_values);
            crate::ensure!(
                n_values <= MAX_VALUES.max(n_file.saturating_mul(4)),
                "a row group claims {n_values} values in lists: write the table with smaller row groups"
            );
            if claims.n_values.saturating_mul(claims.n_dictionary.saturating_add(64)) > MAX_UNWEIGHED_BYTES {
                let longest = guarded(|| match reader.get_row_group(g)?.get_column_reader(c)? {
                    ColumnReader::ByteArrayColumnReader(values) => longest_row(values, column.column_descr()),
                    ColumnReader::FixedLenByteArrayColumnReader(values) => longest_row(values, column.column_descr()),
                    _ => Ok(0),
                })?;
                crate::ensure!(
                    longest <= MAX_ROW_BYTES,
                    "a row has {longest} bytes in the column {}, which is not supported",
                    column.column_path()
                );
            }
        }
    }
    Ok(())
}

/// Bytes of the values of a column in its longest row. The values share the memory of their
/// dictionary.
fn longest_row<T: DataType>(
    mut column: ColumnReaderImpl<T>,
    kind: &ColumnDescriptor,
) -> std::result::Result<usize, ParquetError> {
    let (mut longest, mut row) = (0, 0usize);
    let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        defined.clear();
        repeated.clear();
        values.clear();
        let (n_rows, ..) = column.read_records(256, Some(&mut defined), Some(&mut repeated), &mut values)?;
        if n_rows == 0 {
            return Ok(longest);
        }
        let mut value = values.iter();
        for (i, repeat) in repeated.iter().enumerate() {
            row = if *repeat == 0 { 0 } else { row };
            // Without definition levels, every value is there.
            if defined.get(i).is_none_or(|level| *level == kind.max_def_level()) {
                row = row.saturating_add(value.next().map_or(0, |value| value.as_bytes().len()));
            }
            longest = longest.max(row);
        }
    }
}

/// Runs the library and turns a panic, which a damaged file can cause, into an error.
fn guarded<T>(run: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| Error::new(format!("not a Parquet table that can be read ({e})"))),
        Err(_) => Err(Error::new("the Parquet table is damaged: download or write it again")),
    }
}

fn object(row: &Row, keeps_null: bool) -> Result<Json> {
    let mut object = Map::new();
    for (name, field) in row.get_column_iter() {
        let value = json(field).with_context(|| format!("the column {name:?}"))?;
        if keeps_null || !value.is_null() {
            object.insert(name.clone(), value);
        }
    }
    Ok(Json::Object(object))
}

fn json(field: &Field) -> Result<Json> {
    Ok(match field {
        Field::Null => Json::Null,
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) => (*v).into(),
        Field::Long(v) => (*v).into(),
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Float(v) => (*v).into(),
        Field::Double(v) => (*v).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).context("holds bytes that are not UTF-8")?.into(),
        Field::Group(row) => object(row, false)?,
        Field::ListInternal(list) => Json::Array(list.elements().iter().map(json).collect::<Result<_>>()?),
        Field::MapInternal(map) => {
            let entry = |(key, value): &(Field, Field)| match key {
                Field::Str(key) => Ok((key.clone(), json(value)?)),
                other => Err(Error::new(format!("has a map with the key {other}, which is not a string"))),
            };
            Json::Object(map.entries().iter().map(entry).collect::<Result<_>>()?)
        }
        other => Json::String(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    #[test]
    fn reading_on_behind_the_end_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"abc").unwrap();
        let file = Strict(file);
        let mut read = file.get_read(1).unwrap();
        let mut buffer = [0; 2];
        read.read_exact(&mut buffer).unwrap();
        assert_eq!((&buffer, Length::len(&file)), (b"bc", 3));
        assert_eq!(read.read(&mut buffer).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(read.read(&mut []).unwrap(), 0);
    }

    #[test]
    fn short_files_with_very_long_rows_are_refused() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let schema = parse_message_type("message m { repeated binary text (UTF8); }").unwrap();
        let long = ByteArray::from(vec![b'a'; 1_000_000]);
        let values: Vec<_> = (0..4500).map(|i| if i < 300 { long.clone() } else { ByteArray::from("b") }).collect();
        let check = |repeated: &[i16]| {
            let file = File::create(&path).unwrap();
            let mut writer = SerializedFileWriter::new(file, schema.clone().into(), Default::default()).unwrap();
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&[1; 4500]), Some(repeated)).unwrap();
            column.close().unwrap();
            group.close().unwrap();
            writer.close().unwrap();
            let mut file = File::open(&path).unwrap();
            let reader = SerializedFileReader::new(Strict(file.try_clone().unwrap())).unwrap();
            check_columns(&mut file, &reader)
        };
        check(&[0; 4500]).unwrap();
        let mut one_row = [1; 4500];
        one_row[0] = 0;
        let e = check(&one_row).unwrap_err().to_string();
        assert!(e.contains("a row has 300004200 bytes") && e.contains("column \"text\""), "{e}");
    }
}
