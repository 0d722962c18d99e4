//! What a download of a model would bring: its files with their sizes, as the hub lists them.

use std::io::Read;
use std::path::Path;

use indicatif::ProgressBar;
use serde_json::Value;

use super::disk_space::free_disk_bytes;
use super::hub::{Hub, MODEL, Name, parts_of};
use super::hub_cache::{RepoCache, is_commit, is_relative};
use super::hub_client::{Client, Failure, Fetch, refused};
use super::hub_download::check_status;
use super::hub_list::is_model_gguf;
use crate::error::{Error, Result};
use crate::small_file;

/// Most bytes of a list of files.
const LIST_BYTES: u64 = 16 << 20;

/// A file of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyFile {
    pub name: String,
    pub size: u64,
    /// Bytes of it that are in the cache.
    pub have: u64,
}

/// A GGUF file that a repository offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufChoice {
    /// The name that opens it, such as `org/name:FILE.gguf`.
    pub name: String,
    /// Bytes of all its parts.
    pub size: u64,
}

/// A model on the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The name that opens it. It names the GGUF file if the repository has one that was chosen.
    pub name: String,
    /// The files to download, in the order of the list. Empty if a GGUF file is to be chosen first.
    pub files: Vec<SurveyFile>,
    /// The GGUF files to choose from, if there is more than one and none was named.
    pub choices: Vec<GgufChoice>,
    /// Whether the hub gives it only to those who accepted its licence.
    pub is_gated: bool,
    /// Bytes that the disk of the cache has left, where the system tells.
    pub free_bytes: Option<u64>,
}

impl Survey {
    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Bytes that are to be downloaded.
    pub fn missing_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size.saturating_sub(file.have)).sum()
    }

    /// Bytes by which the disk is too small; 0 if they fit or the system does not tell.
    pub fn lacking_bytes(&self) -> u64 {
        self.free_bytes.map_or(0, |free| self.missing_bytes().saturating_sub(free))
    }
}

impl Hub {
    /// Asks the hub for the files of a model. `spec` is an id with an optional revision, and an optional
    /// GGUF file or the name of its quantisation: `org/name:FILE.gguf` or `org/name:Q4_K_M`.
    pub fn survey(&self, spec: &str) -> Result<Survey> {
        let (head, file) = spec.split_once(':').map_or((spec, None), |(head, file)| (head, Some(file)));
        let Some(name) = Name::parse(head) else {
            return Err(Error::usage(format!(
                "'{spec}' is neither an existing path nor a model id (org/name, org/name@revision, org/name:FILE.gguf or \
                 org/name:Q4_K_M)"
            )));
        };
        if self.offline {
            return Err(self.is_offline(&name));
        }
        let listed =
            self.listed(&name).and_then(|listing| listing.survey(head, file)).map_err(|failure| match failure {
                Failure::Unreachable(e) | Failure::Refused(e) => {
                    name.explained(e.context(format!("looking up '{head}' at {}", self.endpoint)), spec)
                }
            });
        let mut survey = listed?;
        survey.free_bytes = free_disk_bytes(&self.cache);
        Ok(survey)
    }

    /// The hub's list of the files of a model.
    fn listed(&self, name: &Name) -> Fetch<Listing> {
        let client = Client::new(&self.endpoint, self.token.as_deref(), self.limits, ProgressBar::hidden());
        let revision = name.revision.replace('/', "%2F");
        let path = format!("api/models/{}/revision/{revision}?blobs=true", name.id);
        let answer = client.get(&path, 0)?;
        if !check_status(&answer, &name.revision, "its list of files")? {
            return Err(refused("there is no such model (did you mean a local path?)"));
        }
        let mut bytes = Vec::new();
        let read = answer.body.into_reader().take(LIST_BYTES).read_to_end(&mut bytes);
        read.map_err(|e| Failure::Unreachable(Error::new(format!("the list of files: {e}"))))?;
        let text = String::from_utf8_lossy(&bytes);
        let value = small_file::parse_json(&text).map_err(|_| refused(NO_LIST))?;
        Listing::read(&value, &RepoCache::new(&self.cache, &name.id)).ok_or_else(|| refused(NO_LIST))
    }
}

const NO_LIST: &str = "the answer is no list of files, so it is not a model hub's: check HF_ENDPOINT, and whether a proxy \
                       or a login page answers in the hub's place";

/// The files of a commit.
struct Listing {
    files: Vec<SurveyFile>,
    is_gated: bool,
}

impl Listing {
    /// Reads the hub's answer. `None` if it is another kind of answer.
    fn read(value: &Value, repo: &RepoCache) -> Option<Self> {
        let commit = value["sha"].as_str().filter(|commit| is_commit(commit))?;
        let snapshot = repo.snapshot(commit);
        let one = |file: &Value| {
            let name = file["rfilename"].as_str().filter(|name| is_relative(name))?.to_owned();
            let size = file["size"].as_u64().or_else(|| file["lfs"]["size"].as_u64()).unwrap_or(0);
            let whole = snapshot.join(&name).metadata().ok().map(|meta| meta.len());
            let partial = || {
                let sha = file["lfs"]["sha256"].as_str().filter(|sha| is_commit(sha))?;
                repo.partial(sha).metadata().ok().map(|meta| meta.len())
            };
            let have = whole.or_else(partial).unwrap_or(0).min(size);
            Some(SurveyFile { name, size, have })
        };
        let files = value["siblings"].as_array()?.iter().filter_map(one).collect();
        Some(Self { files, is_gated: !matches!(value["gated"], Value::Null | Value::Bool(false)) })
    }

    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name)
    }

    /// The survey of the model of `head`, with the GGUF file or quantisation `wanted`.
    fn survey(self, head: &str, wanted: Option<&str>) -> Fetch<Survey> {
        let is_folder = self.has(MODEL.config) && self.folder_weights().next().is_some();
        let gguf = self.gguf_files();
        match (wanted, gguf.as_slice()) {
            (Some(wanted), _) => {
                let file = self.gguf_named(wanted)?;
                Ok(self.gguf_survey(head, &file))
            }
            (None, _) if is_folder => Ok(self.folder_survey(head)),
            (None, []) => Err(refused(if self.has(MODEL.config) { MODEL.no_weights } else { MODEL.no_config })),
            (None, [only]) => Ok(self.gguf_survey(head, only)),
            (None, several) => {
                let size = |file: &str| self.gguf_survey(head, file).total_bytes();
                let one = |file: &String| GgufChoice { name: format!("{head}:{file}"), size: size(file) };
                let choices = several.iter().map(one).collect();
                Ok(Survey { name: head.to_owned(), choices, is_gated: self.is_gated, ..Survey::default() })
            }
        }
    }

    /// The GGUF files of models; of split ones the first part.
    fn gguf_files(&self) -> Vec<String> {
        let names = self.files.iter().map(|file| &file.name);
        let is_first = |name: &&String| parts_of(name)[0] == **name;
        let is_model = |name: &&String| is_model_gguf(name.rsplit('/').next().unwrap_or(name));
        names.filter(is_model).filter(is_first).cloned().collect()
    }

    /// The file with this name, or the shortest name of the files with this quantisation.
    fn gguf_named(&self, wanted: &str) -> Fetch<String> {
        let gguf = self.gguf_files();
        if wanted.to_ascii_lowercase().ends_with(".gguf") {
            return if self.has(wanted) {
                Ok(wanted.to_owned())
            } else {
                Err(refused(format!("the repository has no file {wanted}{}", listing_of(&gguf))))
            };
        }
        let found = gguf.iter().filter(|file| has_quantisation(file, wanted)).min_by_key(|file| file.len());
        found.cloned().ok_or_else(|| {
            refused(format!("the repository has no GGUF file whose name ends in {wanted}{}", listing_of(&gguf)))
        })
    }

    fn gguf_survey(&self, head: &str, file: &str) -> Survey {
        let parts = parts_of(file);
        let files = self.files.iter().filter(|file| parts.contains(&file.name)).cloned().collect();
        Survey { name: format!("{head}:{file}"), files, is_gated: self.is_gated, ..Survey::default() }
    }

    /// The weights of a folder: in one file, else the index and its parts.
    fn folder_weights(&self) -> impl Iterator<Item = &SurveyFile> {
        let is_whole = self.has(MODEL.weights);
        let index = MODEL.index.filter(|index| self.has(index));
        self.files.iter().filter(move |file| match (is_whole, index) {
            (true, _) => file.name == MODEL.weights,
            (false, Some(index)) => {
                file.name == index || file.name.starts_with("model-") && file.name.ends_with(".safetensors")
            }
            (false, None) => false,
        })
    }

    fn folder_survey(&self, head: &str) -> Survey {
        let is_small = |file: &&SurveyFile| file.name == MODEL.config || MODEL.optional.contains(&file.name.as_str());
        let files = self.files.iter().filter(is_small).chain(self.folder_weights()).cloned().collect();
        Survey { name: head.to_owned(), files, is_gated: self.is_gated, ..Survey::default() }
    }
}

/// Whether the name of a GGUF file ends in a quantisation such as `Q4_K_M`, in capitals or not.
fn has_quantisation(file: &str, wanted: &str) -> bool {
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_ascii_lowercase();
    let stem =
        stem.rsplit_once("-of-").and_then(|(head, _)| head.rsplit_once('-')).map_or(stem.as_str(), |(stem, _)| stem);
    let head = stem.strip_suffix(&wanted.to_ascii_lowercase());
    !wanted.is_empty() && head.is_some_and(|head| head.is_empty() || head.ends_with(['-', '.', '_']))
}

/// The first GGUF files of a repository, for an error message.
fn listing_of(gguf: &[String]) -> String {
    const NAMED: usize = 6;
    if gguf.is_empty() {
        return "; it has no GGUF files".into();
    }
    let more = if gguf.len() > NAMED { ", …" } else { "" };
    format!("; it has {}{more}", gguf.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::hub::hub_test_server::{Reply, hasty, serve, set_rule};
    use super::*;

    const FILES: [(&str, &str); 15] = [
        ("org/small/config.json", "{}"),
        ("org/small/tokenizer.json", "tok"),
        ("org/small/README.md", "read me"),
        ("org/small/model.safetensors", "weights"),
        ("org/small/pytorch_model.bin", "pickle"),
        ("org/big/config.json", "{}"),
        ("org/big/model.safetensors.index.json", "index"),
        ("org/big/model-00001-of-00002.safetensors", "one"),
        ("org/big/model-00002-of-00002.safetensors", "three"),
        ("org/big/consolidated.safetensors", "not these"),
        ("org/packed/x-Q4_K_M.gguf", "four"),
        ("org/packed/x-IQ4_K_M.gguf", "other"),
        ("org/packed/big/x-q8_0-00001-of-00002.gguf", "eight"),
        ("org/packed/big/x-q8_0-00002-of-00002.gguf", "more"),
        ("org/one/mmproj-x.gguf", "vision"),
    ];

    fn names(survey: &Survey) -> Vec<(&str, u64)> {
        survey.files.iter().map(|file| (file.name.as_str(), file.size)).collect()
    }

    #[test]
    fn a_folder_needs_its_configuration_its_weights_and_what_lies_beside() {
        let (endpoint, _) = serve(&FILES);
        let cache = tempfile::tempdir().unwrap();
        let hub = hasty(&endpoint, cache.path());
        let small = hub.survey("org/small").unwrap();
        assert_eq!(names(&small), [("config.json", 2), ("tokenizer.json", 3), ("model.safetensors", 7)]);
        assert_eq!((small.total_bytes(), small.missing_bytes(), small.name.as_str()), (12, 12, "org/small"));
        assert!(small.choices.is_empty() && !small.is_gated);
        assert_eq!(small.free_bytes.is_some(), cfg!(unix));
        let big = hub.survey("org/big@v2").unwrap();
        let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let index = "model.safetensors.index.json";
        assert_eq!(names(&big), [("config.json", 2), (index, 5), (parts[0], 3), (parts[1], 5)]);
        // What is in the cache is not missing.
        hub.fetch(&Name::parse("org/small").unwrap()).unwrap();
        let small = hub.survey("org/small").unwrap();
        assert_eq!((small.total_bytes(), small.missing_bytes()), (12, 0));
        assert_eq!(
            std::fs::read_dir(cache.path()).unwrap().count(),
            2,
            "a survey writes nothing: the model and its locks"
        );
    }

    #[test]
    fn a_gguf_file_is_found_by_its_name_and_by_its_quantisation() {
        let (endpoint, _) = serve(&FILES);
        let cache = tempfile::tempdir().unwrap();
        let hub = hasty(&endpoint, cache.path());
        for (spec, name, size) in [
            ("org/packed:x-Q4_K_M.gguf", "org/packed:x-Q4_K_M.gguf", 4),
            ("org/packed:q4_k_m", "org/packed:x-Q4_K_M.gguf", 4),
            ("org/packed@v2:Q8_0", "org/packed@v2:big/x-q8_0-00001-of-00002.gguf", 9),
        ] {
            let survey = hub.survey(spec).unwrap();
            assert_eq!((survey.name.as_str(), survey.total_bytes()), (name, size), "{spec}");
            assert!(Name::parse(&survey.name).is_some());
        }
        let several = hub.survey("org/packed").unwrap();
        let choices: Vec<(&str, u64)> = several.choices.iter().map(|c| (c.name.as_str(), c.size)).collect();
        let split = "org/packed:big/x-q8_0-00001-of-00002.gguf";
        assert_eq!(choices, [("org/packed:x-Q4_K_M.gguf", 4), ("org/packed:x-IQ4_K_M.gguf", 5), (split, 9)]);
        assert!(several.files.is_empty());
        let error = |spec: &str| hub.survey(spec).unwrap_err().to_string();
        assert!(error("org/packed:Q2_K").contains("x-Q4_K_M.gguf"), "{}", error("org/packed:Q2_K"));
        assert!(error("org/packed:y.gguf").contains("no file y.gguf"));
        assert!(error("org/one").contains("no config.json"));
        assert!(error("org/none").contains("no such model"));
        assert!(error("org/small@v9").contains("no branch, tag or commit 'v9'"));
        assert!(error("no id").contains("org/name:Q4_K_M"));
    }

    #[test]
    fn what_stands_in_the_way_is_said_first() {
        let (endpoint, shelf) = serve(&FILES);
        let cache = tempfile::tempdir().unwrap();
        let hub = hasty(&endpoint, cache.path());
        let error = |hub: &Hub| hub.survey("org/small").unwrap_err().to_string();
        assert!(error(&Hub { offline: true, ..hub.clone() }).contains("HF_HUB_OFFLINE"));
        assert!(error(&Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() }).contains("check the network"));
        set_rule(&shelf, |_, _| Some(Reply::new(401, &[], b"")));
        assert!(error(&hub).contains("HF_TOKEN"));
        set_rule(&shelf, |_, _| Some(Reply::new(200, &[], b"<html>Log in</html>")));
        assert!(error(&hub).contains("login page"));
        let gated = br#"{"sha": "c0ffee0000000000000000000000000000000000", "gated": "manual", "siblings":
            [{"rfilename": "config.json", "size": 2}, {"rfilename": "../evil", "size": 1},
             {"rfilename": "model.safetensors", "lfs": {"size": 5000000000000000, "sha256": "0"}}]}"#;
        set_rule(&shelf, |_, _| Some(Reply::new(200, &[], gated)));
        let survey = hub.survey("org/small").unwrap();
        assert_eq!((survey.is_gated, survey.total_bytes(), survey.files.len()), (true, 5_000_000_000_000_002, 2));
        assert_eq!(survey.lacking_bytes() > 0, cfg!(unix));
    }
}
