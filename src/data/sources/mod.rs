//! Files of training data: each format yields its records one by one.

pub mod bundled_text;
mod csv_file;
pub mod files;
mod json_file;
mod parquet_check;
mod parquet_file;
pub mod read;
pub mod record;
mod text_file;
