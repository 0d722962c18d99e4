//! Chat template filters and methods whose output can grow, each with a size limit.
//!
//! minijinja does not limit them, and templates are untrusted. Operators (`~`, `+`, `*`) cannot be
//! limited here. Only [`super::chat_environment`] uses this file.

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

type Outcome<T> = std::result::Result<T, Error>;

/// Longest result in bytes.
const MAX_TEXT_BYTES: usize = 32 << 20;
/// Widest indentation and widest format field.
const MAX_WIDTH: usize = 999;

/// Installs the limited filters and methods. Removes `batch` and `slice`, which make lists of any
/// length and which chat templates do not use.
pub fn install(env: &mut Environment<'static>) {
    env.remove_filter("batch");
    env.remove_filter("slice");
    env.add_filter("join", |list: Value, joiner: Option<String>| join(&list, joiner.as_deref().unwrap_or_default()));
    env.add_filter("replace", |text: String, from: String, to: String| replace(&text, &from, &to));
    env.add_filter("indent", indent);
    env.add_filter("format", |state: &State, text: Value, values: Rest<Value>| {
        check_format(text.as_str().unwrap_or_default())?;
        filters::format(state, &text, values)
    });
    env.set_unknown_method_callback(|state, value, method, args| {
        match (method, args, value.as_str()) {
            ("join", [list], Some(joiner)) => return join(list, joiner),
            ("replace", [from, to], Some(text)) => {
                if let (Some(from), Some(to)) = (from.as_str(), to.as_str()) {
                    return replace(text, from, to);
                }
            }
            ("replace", [from, to, ..], Some(text)) => {
                replace(text, from.as_str().unwrap_or_default(), to.as_str().unwrap_or_default())?;
            }
            ("format", _, Some(format)) => check_format(format)?,
            _ => {}
        }
        unknown_method_callback(state, value, method, args)
    });
}

fn too_long() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("a filter or method would make a text of more than {MAX_TEXT_BYTES} bytes"),
    )
}

fn join(list: &Value, joiner: &str) -> Outcome<Value> {
    let mut out = String::new();
    for (i, item) in list.try_iter()?.enumerate() {
        if i > 0 {
            out.push_str(joiner);
        }
        match item.as_str() {
            Some(text) => out.push_str(text),
            None => out.push_str(&item.to_string()),
        }
        if out.len() > MAX_TEXT_BYTES {
            return Err(too_long());
        }
    }
    Ok(Value::from(out))
}

fn replace(text: &str, from: &str, to: &str) -> Outcome<Value> {
    let added = text.matches(from).count().saturating_mul(to.len());
    if text.len().saturating_add(added) > MAX_TEXT_BYTES {
        return Err(too_long());
    }
    Ok(Value::from(text.replace(from, to)))
}

fn indent(text: Value, width: Option<usize>, first: Option<bool>, blank: Option<bool>, more: Kwargs) -> Outcome<Value> {
    let asked = width.or(more.get::<Option<usize>>("width")?).unwrap_or(4);
    let lines = text.as_str().map_or(0, |text| text.lines().count());
    if asked > MAX_WIDTH || lines.saturating_mul(asked) > MAX_TEXT_BYTES {
        return Err(too_long());
    }
    let first = first.or(more.get("first")?).unwrap_or(false);
    let blank = blank.or(more.get("blank")?).unwrap_or(false);
    more.assert_all_used()?;
    let margin = " ".repeat(asked);
    let text = text.to_string();
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n').enumerate();
    let indented = lines.map(|(i, line)| {
        let wanted = (i > 0 || first) && (blank || !line.is_empty());
        if wanted { format!("{margin}{line}") } else { line.to_owned() }
    });
    Ok(Value::from(indented.collect::<Vec<_>>().join("\n")))
}

/// Rejects formats with wide fields or with a width from an argument.
fn check_format(format: &str) -> Outcome<()> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count() > MAX_WIDTH.to_string().len();
    let wide = (0..format.len()).any(|i| format.is_char_boundary(i) && digits(&format[i..]));
    if wide || format.contains('*') { Err(too_long()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Outcome<String> {
        let mut env = Environment::new();
        install(&mut env);
        env.render_str(source, minijinja::context! { words => ["a", "b"], n => 1 })
    }

    #[test]
    fn they_do_what_templates_expect() {
        for (source, text) in [
            ("{{ words|join(', ') }}{{ words|join }}{{ 'xyz'|join('-') }}", "a, babx-y-z"),
            ("{{ ', '.join(words) }} {{ [1, 'a']|join('+') }}", "a, b 1+a"),
            ("{{ 'aba'|replace('a', 'c') }}{{ 'aba'.replace('a', 'c') }}{{ 'aba'.replace('a', 'c', 1) }}", "cbccbccba"),
            ("{{ 'a\nb\n\nc\n'|indent(2) }}|{{ 'a'|indent(width=1, first=true) }}", "a\n  b\n\n  c| a"),
            ("{{ '%s-%d'|format('a', 3) }}{{ '{}'.format(n) }}", "a-31"),
        ] {
            assert_eq!(render(source).unwrap(), text, "{source}");
        }
    }

    #[test]
    fn they_stop_where_a_text_grows_without_end() {
        let long = "x".repeat(1000);
        let chain = |step: &str| format!("{{{{ '{long}'{} }}}}", step.repeat(9));
        for source in [
            chain(&format!("|join('{long}')")),
            chain(&format!("|replace('x', '{long}')")),
            chain(&format!(".replace('x', '{long}')")),
            format!("{{{{ '{long}'.join('{long}'.join('{long}'.join(words|join('{long}')))) }}}}"),
            "{{ 'a\nb'|indent(999999999) }}".to_owned(),
            "{{ '%999999999d'|format(1) }}".to_owned(),
            "{{ '{:999999999}'.format(1) }}".to_owned(),
        ] {
            let e = render(&source).expect_err(&source[..source.len().min(60)]).to_string();
            assert!(e.contains("a text of more than"), "{e}");
        }
        assert!(render("{{ [1]|batch(999999999, 0) }}").is_err());
    }
}
