//! Tests of downloads from a small hub on loopback.

use super::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The files of the hub by path, and the requests it received.
#[derive(Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
    commit: String,
    asked: Vec<String>,
    token: Option<String>,
}

/// Starts a hub on loopback that serves `/ORG/NAME/resolve/REVISION/FILE` like huggingface.co. It
/// runs until the process ends.
fn serve(files: &[(&str, &str)]) -> (String, Arc<Mutex<Shelf>>) {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let shelf = Arc::new(Mutex::new(Shelf { files, commit: "c0ffee".into(), ..Shelf::default() }));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::clone(&shelf);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Ignore clients that close the connection early.
            let _ = answer(stream, &shared);
        }
    });
    (endpoint, shelf)
}

fn answer(mut stream: TcpStream, shelf: &Mutex<Shelf>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = None;
    let mut token = None;
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
            "authorization" => token = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut shelf = shelf.lock().unwrap();
    shelf.asked.push(path.clone());
    if shelf.token.is_some() && shelf.token != token {
        return write!(stream, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let Some(body) = shelf.files.get(&path) else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let range = range.unwrap_or_else(|| "0-".into());
    let (from, to) = range.split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(body.len(), |last: usize| last + 1).min(body.len());
    let etag: String = path.chars().filter(char::is_ascii_alphanumeric).chain(shelf.commit.chars()).collect();
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        shelf.commit,
        to - 1,
        body.len(),
        to - from
    )?;
    stream.write_all(&body[from..to])
}

fn hub(endpoint: &str, cache: &Path) -> Hub {
    Hub { endpoint: endpoint.to_owned(), cache: cache.to_owned(), token: None, offline: false, progress: false }
}

fn name(spec: &str) -> Name {
    Name::parse(spec).unwrap()
}

const SMALL: [(&str, &str); 3] = [
    ("/org/small/resolve/main/config.json", "{}"),
    ("/org/small/resolve/main/tokenizer.json", "tok"),
    ("/org/small/resolve/main/model.safetensors", "weights"),
];

#[test]
fn names_are_told_from_paths() {
    let parts = |spec| Name::parse(spec).map(|n| (n.id, n.revision, n.file));
    let some = |id: &str, rev: &str, file: Option<&str>| Some((id.into(), rev.into(), file.map(str::to_owned)));
    assert_eq!(parts("Qwen/Qwen2.5-0.5B"), some("Qwen/Qwen2.5-0.5B", "main", None));
    assert_eq!(parts("a/b@refs/pr/1"), some("a/b", "refs/pr/1", None));
    assert_eq!(parts("a/b@v1:q4/x.gguf"), some("a/b", "v1", Some("q4/x.gguf")));
    for wrong in
        ["", "model", "./a/b", "/a/b", "a/b/c", "../b", "a/..", "a/b@", "a/b:../x.gguf", "a/b:x.bin", "a b/c", "a/b@/x"]
    {
        assert_eq!(parts(wrong), None, "{wrong}");
    }
    let e = resolve("no such model").unwrap_err();
    assert!(e.kind() == crate::ErrorKind::Usage && e.to_string().contains("org/name"), "{e}");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(resolve(dir.path().to_str().unwrap()).unwrap(), dir.path());
}

#[test]
fn a_model_is_downloaded_once_and_then_found_in_the_cache() {
    let (endpoint, shelf) = serve(&SMALL);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    let folder = hub.fetch(&name("org/small")).unwrap();
    assert!(folder.ends_with("models--org--small/snapshots/c0ffee"), "{}", folder.display());
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), b"weights");
    assert_eq!(std::fs::read(folder.join("tokenizer.json")).unwrap(), b"tok");
    assert!(!folder.join("chat_template.jinja").exists());

    shelf.lock().unwrap().asked.clear();
    assert_eq!(hub.fetch(&name("org/small")).unwrap(), folder);
    assert_eq!(Hub { offline: true, ..hub.clone() }.fetch(&name("org/small")).unwrap(), folder);
    assert!(shelf.lock().unwrap().asked.is_empty());

    // Without the tokenizer, only the missing files are requested again. An unreachable hub is no
    // error.
    std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let unreachable = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() };
    assert_eq!(unreachable.fetch(&name("org/small")).unwrap(), folder);
    assert_eq!(hub.fetch(&name("org/small")).unwrap(), folder);
    assert!(folder.join("tokenizer.json").exists());
    let asked = shelf.lock().unwrap().asked.clone();
    assert!(!asked.iter().any(|path| path.ends_with("model.safetensors")), "{asked:?}");
}

#[test]
fn shards_revisions_and_gguf_files_are_fetched() {
    let index =
        r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let (endpoint, _) = serve(&[
        ("/org/big/resolve/v2/config.json", "{}"),
        ("/org/big/resolve/v2/model.safetensors.index.json", index),
        ("/org/big/resolve/v2/model-1.safetensors", "one"),
        ("/org/big/resolve/v2/model-2.safetensors", "two"),
        ("/org/packed/resolve/main/q/x.gguf", "gguf"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    let folder = hub.fetch(&name("org/big@v2")).unwrap();
    assert_eq!(std::fs::read(folder.join("model-2.safetensors")).unwrap(), b"two");
    assert_eq!(Hub { offline: true, ..hub.clone() }.fetch(&name("org/big@v2")).unwrap(), folder);
    let file = hub.fetch(&name("org/packed:q/x.gguf")).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"gguf");
    let e = hub.fetch(&name("org/packed")).unwrap_err().to_string();
    assert!(e.contains("config.json") && e.contains("FILE.gguf"), "{e}");
}

#[test]
fn a_model_that_changed_on_the_hub_is_not_mixed() {
    let (endpoint, shelf) = serve(&SMALL);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    let weights = shelf.lock().unwrap().files.remove(SMALL[2].0).unwrap();
    assert!(hub.fetch(&name("org/small")).unwrap_err().to_string().contains("neither"));
    {
        let mut shelf = shelf.lock().unwrap();
        shelf.commit = "decaf".into();
        shelf.files.insert(SMALL[2].0.into(), weights);
        shelf.files.insert(SMALL[0].0.into(), b"{\"new\": 1}".to_vec());
    }
    let folder = hub.fetch(&name("org/small")).unwrap();
    assert!(folder.ends_with("decaf"));
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), b"{\"new\": 1}");
    assert!(folder.join("tokenizer.json").exists() && folder.join("model.safetensors").exists());
}

#[test]
fn failures_say_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let (endpoint, shelf) = serve(&SMALL);
    let hub = hub(&endpoint, cache.path());
    let e = Hub { offline: true, ..hub.clone() }.fetch(&name("org/small")).unwrap_err().to_string();
    assert!(e.contains("HF_HUB_OFFLINE"), "{e}");
    let e =
        Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() }.fetch(&name("org/small")).unwrap_err().to_string();
    assert!(e.contains("check the network"), "{e}");
    let e = hub.fetch(&name("org/absent")).unwrap_err().to_string();
    assert!(e.contains("no such model"), "{e}");
    shelf.lock().unwrap().token = Some("Bearer secret".into());
    let e = hub.fetch(&name("org/small")).unwrap_err().to_string();
    assert!(e.contains("HF_TOKEN"), "{e}");
    let with_token = Hub { token: Some("secret".into()), ..hub };
    assert!(with_token.fetch(&name("org/small")).is_ok());
}

#[test]
fn a_missing_path_below_a_folder_that_exists_is_called_missing_first() {
    let cache = tempfile::tempdir().unwrap();
    let offline = Hub { offline: true, ..hub("http://127.0.0.1:1", cache.path()) };
    // Tests run in the package's folder, which has a folder `src`.
    for (spec, local) in [("src/absent", true), ("absent/src", false)] {
        let e = name(spec).explained(offline.fetch(&name(spec)).unwrap_err(), spec).to_string();
        assert_eq!(e.starts_with("there is no local path 'src/absent'"), local, "{e}");
        assert!(e.contains("HF_HUB_OFFLINE"), "{e}");
    }
}

#[test]
fn an_index_cannot_lead_out_of_the_cache() {
    for index in [r#"{"weight_map": {"a": "../../evil"}}"#, r#"{"weight_map": {"a": "/etc/evil"}}"#, "{}", "["] {
        let (endpoint, shelf) = serve(&[
            ("/org/evil/resolve/main/config.json", "{}"),
            ("/org/evil/resolve/main/model.safetensors.index.json", index),
        ]);
        let cache = tempfile::tempdir().unwrap();
        assert!(hub(&endpoint, cache.path()).fetch(&name("org/evil")).is_err());
        assert!(!shelf.lock().unwrap().asked.iter().any(|path| path.contains("evil/resolve/main/..")));
    }
}
