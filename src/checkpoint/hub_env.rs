//! Where huggingface_hub looks: the hub's address, the cache and the token from environment variables.
//!
//! The variables are those of huggingface_hub's `constants.py`: `HF_ENDPOINT`, `HF_HUB_CACHE`,
//! `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`,
//! `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE`.

use crate::error::{Error, Result};
use std::path::PathBuf;

/// Reads environment variables. An empty one counts as absent.
pub(super) struct Variables<'a> {
    pub get: &'a dyn Fn(&str) -> Option<String>,
    pub home: Option<PathBuf>,
}

impl Variables<'_> {
    /// The hub's address without a slash at its end.
    pub fn endpoint(&self) -> Result<String> {
        let endpoint = self.value("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Error::usage(format!("HF_ENDPOINT is '{endpoint}'; expected http://… or https://…")));
        }
        Ok(endpoint.trim_end_matches('/').to_owned())
    }

    /// The folder with the `models--org--name` folders.
    pub fn cache(&self) -> Result<PathBuf> {
        match self.value("HF_HUB_CACHE").or_else(|| self.value("HUGGINGFACE_HUB_CACHE")) {
            Some(cache) => Ok(self.path(&cache)),
            None => Ok(self.hf_home()?.join("hub")),
        }
    }

    /// The token: `HF_TOKEN`, else the one that `hf auth login` stored.
    pub fn token(&self) -> Option<String> {
        let clean = |text: String| Some(text.trim().to_owned()).filter(|token| !token.is_empty());
        if let Some(token) = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().find_map(|name| self.value(name)) {
            return clean(token);
        }
        if self.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return None;
        }
        let path = match self.value("HF_TOKEN_PATH") {
            Some(path) => self.path(&path),
            None => self.hf_home().ok()?.join("token"),
        };
        std::fs::read_to_string(path).ok().and_then(clean)
    }

    /// Whether only the cache may be used.
    pub fn is_offline(&self) -> bool {
        let own = self.value("HF_HUB_OFFLINE").is_some();
        self.is_true(if own { "HF_HUB_OFFLINE" } else { "TRANSFORMERS_OFFLINE" })
    }

    fn hf_home(&self) -> Result<PathBuf> {
        if let Some(home) = self.value("HF_HOME") {
            return Ok(self.path(&home));
        }
        let caches = match (self.value("XDG_CACHE_HOME"), &self.home) {
            (Some(caches), _) => self.path(&caches),
            (None, Some(home)) => home.join(".cache"),
            (None, None) => {
                return Err(Error::new("no home directory was found for the model cache; set HF_HOME"));
            }
        };
        Ok(caches.join("huggingface"))
    }

    fn value(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        let value = self.value(name).map(|v| v.to_ascii_uppercase());
        value.is_some_and(|v| matches!(v.as_str(), "1" | "ON" | "YES" | "TRUE"))
    }

    /// A path with `~` at its start and `$NAME` or `${NAME}` anywhere replaced, as Python's
    /// `expanduser` and `expandvars` do. Unknown variables stay.
    fn path(&self, text: &str) -> PathBuf {
        let home = self.home.as_ref().map(|home| home.to_string_lossy());
        let tilde = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let mut rest = match (tilde, &home) {
            (Some(rest), Some(home)) => format!("{}{rest}", home.trim_end_matches('/')),
            _ => text.to_owned(),
        };
        let mut out = String::new();
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let (name, len) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((name, _)) => (name, name.len() + 2),
                None => {
                    let len = after.find(|c| !is_word(c)).unwrap_or(after.len());
                    (&after[..len], len)
                }
            };
            match (self.get)(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..=at + len]),
            }
            rest = after[len..].to_owned();
        }
        PathBuf::from(out + &rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn with<T>(pairs: &[(&str, &str)], look: impl Fn(&Variables<'_>) -> T) -> T {
        let get = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        look(&Variables { get: &get, home: Some(PathBuf::from("/home/me")) })
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_looks() {
        for (pairs, expected) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/xdg")], "/xdg/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "~/xdg")], "/home/me/xdg/huggingface/hub"),
            (&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/xdg")], "/home/me/hf/hub"),
            (&[("HF_HOME", "")], "/home/me/.cache/huggingface/hub"),
            (&[("HF_HOME", "$DATA/hf"), ("DATA", "/data")], "/data/hf/hub"),
            (&[("HF_HOME", "/a/${DATA}b$NONE/${NONE}"), ("DATA", "x")], "/a/xb$NONE/${NONE}/hub"),
            (&[("HF_HOME", "~you/hf$")], "~you/hf$/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")], "/old"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "~/new")], "/home/me/new"),
        ] {
            assert_eq!(with(pairs, |v| v.cache().unwrap()), Path::new(expected), "{pairs:?}");
        }
        let get = |_: &str| None;
        assert!(Variables { get: &get, home: None }.cache().unwrap_err().to_string().contains("HF_HOME"));
    }

    #[test]
    fn the_token_and_the_switches_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), " stored\n").unwrap();
        let home = dir.path().to_str().unwrap();
        let token = |pairs: &[(&str, &str)]| with(pairs, |v| v.token());
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "given\n")]).as_deref(), Some("given"));
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("stored"));
        let path = format!("{home}/token");
        assert_eq!(token(&[("HF_TOKEN_PATH", &path), ("HF_HOME", "/absent")]).as_deref(), Some("stored"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let is_offline = |pairs: &[(&str, &str)]| with(pairs, |v| v.is_offline());
        assert!(is_offline(&[("HF_HUB_OFFLINE", "yes")]) && is_offline(&[("TRANSFORMERS_OFFLINE", "1")]));
        assert!(!is_offline(&[]) && !is_offline(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]));
        assert_eq!(with(&[("HF_ENDPOINT", "http://x/")], |v| v.endpoint().unwrap()), "http://x");
        assert!(with(&[("HF_ENDPOINT", "x")], |v| v.endpoint().is_err()));
    }
}
