//! Parquet tables: each row is an object, and lists of structs become lists of objects.
//!
//! Only the known columns are read. A struct has no absent fields in this format, so fields of
//! structs that are null are left out.

use super::parquet_check::{self, Chunk};
use super::record::{Content, Each, Place};
use crate::data::line::FIELDS;
use crate::error::{Context, Error, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value as Json};
use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Reads a table row by row.
pub fn read(file: BufReader<File>, each: Each<'_>) -> Result<()> {
    let mut file = file.into_inner();
    parquet_check::check_footer(&mut file)?;
    let mut pages = file.try_clone()?;
    let reader = guarded(|| SerializedFileReader::new(file))?;
    let schema = reader.metadata().file_metadata().schema();
    let columns: Vec<_> = schema.get_fields().iter().filter(|field| FIELDS.contains(&field.name())).cloned().collect();
    if columns.is_empty() {
        let names: Vec<_> = schema.get_fields().iter().map(|field| field.name()).take(20).collect();
        crate::bail!("the table has the columns [{}], and none of {}", names.join(", "), FIELDS.join(", "));
    }
    for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
        if column.column_path().parts().first().is_some_and(|name| FIELDS.contains(&name.as_str())) {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            parquet_check::check_pages(&mut pages, &Chunk { start, n_bytes: column.compressed_size() })?;
        }
    }
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
