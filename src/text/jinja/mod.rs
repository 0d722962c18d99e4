//! Floor 7: Jinja2 as chat templates use it, run within a budget and printed as in Python

pub mod args;
pub mod ast;
pub mod attributes;
pub mod budget;
pub mod conditions;
pub mod evaluate;
pub mod filters;
pub mod format_spec;
pub mod functions;
pub mod interpreter;
pub mod json;
pub mod lexer;
pub mod list_filters;
pub mod loops;
pub mod methods;
pub mod operators;
pub mod parse_expressions;
pub mod parse_statements;
pub mod percent_format;
pub mod print;
pub mod str_methods;
pub mod strftime;
pub mod template;
pub mod text_filters;
pub mod value;
