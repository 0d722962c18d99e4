//! Tests of downloads from a small hub on loopback.

use super::hub_test_server::{COMMIT, OTHER, Reply, Request, Shelf, serve, set_rule};
use super::*;
use std::sync::Mutex;
use std::time::Duration;

/// A hub with limits that a test can wait for.
fn hub(endpoint: &str, cache: &Path) -> Hub {
    let limits = Limits {
        silence: Duration::from_secs(20),
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_secs(2),
        tries: 3,
        ..Limits::default()
    };
    Hub { endpoint: endpoint.into(), cache: cache.into(), token: None, offline: false, progress: false, limits }
}

fn name(spec: &str) -> Name {
    Name::parse(spec).unwrap()
}

fn error_of(hub: &Hub, spec: &str) -> String {
    hub.fetch(&name(spec)).unwrap_err().to_string()
}

/// The names of the files asked for since the last call.
fn asked(shelf: &Mutex<Shelf>) -> Vec<String> {
    let requests = std::mem::take(&mut shelf.lock().unwrap().asked);
    requests.iter().map(|r| r.path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

const SMALL: [(&str, &str); 3] =
    [("org/small/config.json", "{}"), ("org/small/tokenizer.json", "tok"), ("org/small/model.safetensors", "weights")];

/// The name of the blob that a file of a snapshot links to.
fn weights_of(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

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
    assert!(folder.ends_with(format!("models--org--small/snapshots/{COMMIT}")), "{}", folder.display());
    assert_eq!(weights_of(&folder), b"weights");
    assert_eq!(std::fs::read(folder.join("tokenizer.json")).unwrap(), b"tok");
    assert!(!folder.join("chat_template.jinja").exists());
    let paths: Vec<_> = shelf.lock().unwrap().asked.iter().map(|r| r.path.clone()).collect();
    assert!(paths[0].ends_with("/resolve/main/config.json"), "{paths:?}");
    assert!(paths[1..].iter().all(|path| path.contains(&format!("/resolve/{COMMIT}/"))), "one commit: {paths:?}");

    asked(&shelf);
    assert_eq!(hub.fetch(&name("org/small")).unwrap(), folder);
    assert_eq!(Hub { offline: true, ..hub.clone() }.fetch(&name("org/small")).unwrap(), folder);
    assert_eq!(hub.fetch(&name(&format!("org/small@{COMMIT}"))).unwrap(), folder);
    assert!(asked(&shelf).is_empty());
}

#[test]
fn an_adapter_is_downloaded_with_its_record() {
    let files = [
        ("org/tuned/adapter_config.json", "{}"),
        ("org/tuned/adapter_model.safetensors", "pairs"),
        ("org/tuned/longreach.json", "record"),
        ("org/old/adapter_config.json", "{}"),
        ("org/old/adapter_model.bin", "pickle"),
        ("org/small/config.json", "{}"),
    ];
    let (endpoint, shelf) = serve(&files);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    let folder = hub.fetch_adapter(&name("org/tuned")).unwrap();
    assert_eq!(std::fs::read(folder.join("adapter_model.safetensors")).unwrap(), b"pairs");
    assert_eq!(std::fs::read(folder.join("longreach.json")).unwrap(), b"record");
    assert!(asked(&shelf).iter().all(|file| !file.contains("tokenizer")), "nothing that an adapter has not");
    assert_eq!(Hub { offline: true, ..hub.clone() }.fetch_adapter(&name("org/tuned")).unwrap(), folder);
    let error = |id: &str| hub.fetch_adapter(&name(id)).unwrap_err().to_string();
    assert!(error("org/old").contains("adapter_model.bin is not supported"));
    assert!(error("org/small").contains("no adapter_config.json"));
    let local = Path::new("nowhere");
    assert_eq!(resolve_adapter(local).unwrap(), local, "no id, so reading it says what is wrong");
}

#[test]
fn a_snapshot_that_lacks_small_files_is_completed() {
    let (endpoint, shelf) = serve(&SMALL);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    // As other programs leave it: without the tokenizer, and without a word about absent files.
    let repo = RepoCache::new(cache.path(), "org/small");
    let folder = repo.snapshot(COMMIT);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    std::fs::write(folder.join("model.safetensors"), "weights").unwrap();
    repo.set_commit("main", COMMIT).unwrap();
    // A newer commit of the branch does not matter.
    shelf.lock().unwrap().commit = OTHER.into();
    let unreachable = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() };
    for broken in [&unreachable, &hub] {
        assert_eq!(broken.fetch(&name("org/small")).unwrap(), folder, "the weights are enough");
        assert!(!folder.join("tokenizer.json").exists());
    }
    shelf.lock().unwrap().commit = COMMIT.into();
    asked(&shelf);
    assert_eq!(hub.fetch(&name("org/small")).unwrap(), folder);
    assert!(folder.join("tokenizer.json").exists());
    let names: Vec<&str> = MODEL.optional.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
    assert_eq!(asked(&shelf), names);
    assert_eq!(hub.fetch(&name("org/small")).unwrap(), folder);
    assert!(asked(&shelf).is_empty(), "absent files are remembered");
}

#[test]
fn shards_revisions_and_gguf_files_are_fetched() {
    let index =
        r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let (endpoint, _) = serve(&[
        ("org/big/config.json", "{}"),
        ("org/big/model.safetensors.index.json", index),
        ("org/big/model-1.safetensors", "one"),
        ("org/big/model-2.safetensors", "two"),
        ("org/packed/q/x.gguf", "gguf"),
        ("org/packed/y-00001-of-00002.gguf", "first"),
        ("org/packed/y-00002-of-00002.gguf", "second"),
        ("org/packed/z-00001-of-00002.gguf", "first"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    let offline = Hub { offline: true, ..hub.clone() };
    let folder = hub.fetch(&name("org/big@v2")).unwrap();
    assert_eq!(std::fs::read(folder.join("model-2.safetensors")).unwrap(), b"two");
    assert_eq!(offline.fetch(&name("org/big@v2")).unwrap(), folder);
    assert!(error_of(&hub, "org/big@v3").contains("no branch, tag or commit 'v3'"));
    let file = hub.fetch(&name("org/packed:q/x.gguf")).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"gguf");
    let split = name("org/packed:y-00001-of-00002.gguf");
    let file = hub.fetch(&split).unwrap();
    assert_eq!(std::fs::read(file.with_file_name("y-00002-of-00002.gguf")).unwrap(), b"second");
    assert_eq!(offline.fetch(&split).unwrap(), file);
    assert!(error_of(&hub, "org/packed:z-00001-of-00002.gguf").contains("no file z-00002-of-00002.gguf"));
    let e = error_of(&hub, "org/packed");
    assert!(e.contains("config.json") && e.contains("FILE.gguf"), "{e}");
}

#[test]
fn a_model_that_changed_on_the_hub_is_not_mixed() {
    let (endpoint, shelf) = serve(&SMALL);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    let weights = shelf.lock().unwrap().files.remove(2);
    assert!(error_of(&hub, "org/small").contains("neither"));
    {
        let mut shelf = shelf.lock().unwrap();
        shelf.commit = OTHER.into();
        shelf.files.push(weights);
        shelf.files[0].1 = b"{\"new\": 1}".to_vec();
    }
    let folder = hub.fetch(&name("org/small")).unwrap();
    assert!(folder.ends_with(OTHER));
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), b"{\"new\": 1}");
    assert!(folder.join("tokenizer.json").exists() && folder.join("model.safetensors").exists());
    // A hub that answers with another commit than asked.
    let cache = tempfile::tempdir().unwrap();
    set_rule(&shelf, |r, _| {
        r.path.contains(OTHER).then(|| Reply::new(200, &[("ETag", "x"), ("X-Repo-Commit", COMMIT)], b"mixed"))
    });
    assert!(error_of(&self::hub(&endpoint, cache.path()), "org/small").contains(&format!("of commit {OTHER}")));
}

#[test]
fn failures_say_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let (endpoint, shelf) = serve(&SMALL);
    let hub = hub(&endpoint, cache.path());
    let e = error_of(&Hub { offline: true, ..hub.clone() }, "org/small");
    assert!(e.contains("HF_HUB_OFFLINE"), "{e}");
    let e = error_of(&Hub { endpoint: "http://127.0.0.1:1".into(), ..hub.clone() }, "org/small");
    assert!(e.contains("check the network"), "{e}");
    assert!(error_of(&hub, "org/absent").contains("no such model"));
    set_rule(&shelf, |r, _| (r.token.as_deref() != Some("Bearer secret")).then(|| Reply::new(401, &[], b"no")));
    assert!(error_of(&hub, "org/small").contains("HF_TOKEN"));
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
        let (endpoint, shelf) =
            serve(&[("org/evil/config.json", "{}"), ("org/evil/model.safetensors.index.json", index)]);
        let cache = tempfile::tempdir().unwrap();
        assert!(hub(&endpoint, cache.path()).fetch(&name("org/evil")).is_err());
        assert!(!asked(&shelf).iter().any(|file| file == "evil"));
    }
}

#[test]
fn no_header_becomes_a_path() {
    let root = tempfile::tempdir().unwrap();
    let precious = root.path().join("precious.txt");
    std::fs::write(&precious, "precious").unwrap();
    let (endpoint, shelf) = serve(&SMALL);
    for etag in [precious.to_str().unwrap(), "../../../../evil", "..", ""] {
        let cache = root.path().join("cache");
        let etag = format!("\"{etag}\"");
        set_rule(&shelf, move |_, _| Some(Reply::new(200, &[("ETag", &etag), ("X-Repo-Commit", COMMIT)], b"{}")));
        assert!(hub(&endpoint, &cache).fetch(&name("org/small")).is_ok());
        assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
        std::fs::remove_dir_all(&cache).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "only precious.txt is left");
    }
    for commit in ["../../../escaped", "/escaped", "main", ""] {
        let cache = root.path().join("cache");
        set_rule(&shelf, move |_, _| Some(Reply::new(200, &[("ETag", "x"), ("X-Repo-Commit", commit)], b"{}")));
        assert!(error_of(&hub(&endpoint, &cache), "org/small").contains("names no commit"));
        assert!(!cache.exists(), "nothing was written");
    }
}

#[test]
fn what_no_hub_sends_is_refused() {
    let (endpoint, shelf) = serve(&SMALL);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    let page = ("Content-Type", "text/html; charset=utf-8");
    for headers in [&[page][..], &[("ETag", "x"), ("X-Repo-Commit", COMMIT), page], &[("X-Repo-Commit", COMMIT)]] {
        let reply = Reply::new(200, headers, b"<html>Log in to the hotel's network</html>");
        set_rule(&shelf, move |_, _| Some(reply.clone()));
        let e = error_of(&hub, "org/small");
        assert!(e.contains("login page") && e.contains("HF_ENDPOINT"), "{e}");
    }
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn redirects_end_and_carry_no_token_to_another_host() {
    let (store, stored) = serve(&[]);
    let (endpoint, shelf) = serve(&SMALL);
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { token: Some("secret".into()), ..hub(&endpoint, cache.path()) };
    let commit = ("X-Repo-Commit", COMMIT);
    let sha = ("X-Linked-Etag", "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c");
    // Renamed on the hub itself, then stored elsewhere, under other headers.
    let to = format!("{store}/blob?signature=1");
    set_rule(&shelf, move |r, _| match r.path.as_str() {
        path if path.starts_with("/org/small/") => {
            Some(Reply::new(307, &[], b"").header("Location", &path.replace("small", "new")))
        }
        path if path.starts_with("/org/new/") && path.ends_with("model.safetensors") => {
            Some(Reply::new(302, &[commit, sha, ("X-Linked-Size", "7"), ("Location", &to)], b""))
        }
        path if path.starts_with("/org/new/") => Some(Reply::new(200, &[commit, ("ETag", "x")], b"{}")),
        _ => None,
    });
    for (content, is_right) in [(b"WEIGHTS", false), (b"weights", true)] {
        set_rule(&stored, move |_, _| {
            Some(Reply::new(200, &[("ETag", "../other"), ("X-Repo-Commit", OTHER)], content))
        });
        match hub.fetch(&name("org/small")) {
            Ok(folder) => assert!(is_right && weights_of(&folder) == content),
            Err(e) => assert!(!is_right && e.to_string().contains("another SHA-256"), "{e}"),
        }
    }
    let (asked, elsewhere) = (shelf.lock().unwrap().asked.clone(), stored.lock().unwrap().asked.clone());
    assert!(asked.iter().all(|r| r.token.as_deref() == Some("Bearer secret")));
    assert!(!elsewhere.is_empty() && elsewhere.iter().all(|r| r.token.is_none()));

    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { cache: cache.path().into(), ..hub };
    set_rule(&shelf, |r, _| Some(Reply::new(302, &[], b"").header("Location", &format!("{}x", r.path))));
    assert!(error_of(&hub, "org/small").contains("redirects more than 10 times"));
    assert_eq!(shelf.lock().unwrap().asked.len(), 11);
    for location in [None, Some("ftp://store/x"), Some("/a b"), Some("http://")] {
        set_rule(&shelf, move |_, _| {
            let reply = Reply::new(302, &[], b"");
            Some(location.map_or(reply.clone(), |to| reply.header("Location", to)))
        });
        assert!(error_of(&hub, "org/small").contains("redirects"), "{location:?}");
    }
}

#[test]
fn silence_and_a_trickle_end_with_a_message_and_go_on_later() {
    let (endpoint, shelf) = serve(&SMALL);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    let hub = Hub { limits: Limits { silence: Duration::from_millis(1500), ..hub.limits }, ..hub };
    let weights = |r: &Request| r.path.ends_with("model.safetensors");
    let long = Duration::from_secs(60);
    let whole = || Reply::new(200, &[("ETag", "x"), ("X-Repo-Commit", COMMIT)], b"{}");
    set_rule(&shelf, move |_, _| Some(Reply { delay: long, ..whole() }));
    assert!(error_of(&hub, "org/small").contains("sent nothing for 1 s"));
    set_rule(&shelf, move |_, _| Some(Reply { pause: long, ..whole() }));
    let e = error_of(&hub, "org/small");
    assert!(e.contains("nothing came for 1 s") && e.contains("next run continues"), "{e}");
    // Bytes that come too slowly.
    set_rule(&shelf, move |r, _| {
        let whole = Reply::new(200, &[("ETag", "w"), ("X-Repo-Commit", COMMIT)], &[b'x'; 200]);
        weights(r).then(|| Reply { pause: Duration::from_millis(20), ..whole })
    });
    let e = error_of(&hub, "org/small");
    assert!(e.contains("only") && e.contains("bytes came"), "{e}");
    // What came is kept.
    set_rule(&shelf, move |r, _| {
        let from = r.from.unwrap_or(0);
        let range = format!("bytes {from}-199/200");
        let headers = [("ETag", "w"), ("X-Repo-Commit", COMMIT), ("Content-Range", range.as_str())];
        let status = if r.from.is_some() { 206 } else { 200 };
        weights(r).then(|| Reply::new(status, &headers, &[b'x'; 200][from..]))
    });
    assert_eq!(weights_of(&hub.fetch(&name("org/small")).unwrap()), [b'x'; 200]);
    assert!(shelf.lock().unwrap().asked.iter().any(|r| r.from.is_some_and(|from| from > 0)));
}

#[test]
fn a_broken_transfer_is_resumed_where_it_broke() {
    let long: String = (0..50_000).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
    let files = [SMALL[0], ("org/small/model.safetensors", long.as_str())];
    /// How a hub answers a request for the rest.
    #[derive(Clone, Copy, PartialEq)]
    enum Rest {
        Right,
        IgnoresRange,
        WrongRange,
        NotSatisfiable,
    }
    for rest in [Rest::Right, Rest::IgnoresRange, Rest::WrongRange, Rest::NotSatisfiable] {
        let (endpoint, shelf) = serve(&files);
        let cache = tempfile::tempdir().unwrap();
        let text = long.clone().into_bytes();
        let was_cut = std::sync::atomic::AtomicBool::new(false);
        set_rule(&shelf, move |r, _| {
            let whole = || Reply::new(200, &[("ETag", "w"), ("X-Repo-Commit", COMMIT)], &text);
            let is_first =
                r.path.ends_with("model.safetensors") && !was_cut.swap(true, std::sync::atomic::Ordering::Relaxed);
            if r.path.ends_with("model.safetensors") && is_first {
                return Some(Reply { body: text[..30_000].to_vec(), length: Some(text.len()), ..whole() });
            }
            r.from.and_then(|from| match rest {
                Rest::Right => None,
                Rest::IgnoresRange => Some(whole()),
                Rest::WrongRange => Some(Reply {
                    status: 206,
                    ..whole().header("Content-Range", &format!("bytes {}-/50000", from - 1))
                }),
                Rest::NotSatisfiable => Some(Reply::new(416, &[], b"")),
            })
        });
        // The rule sees the first request for the configuration first.
        let folder = hub(&endpoint, cache.path()).fetch(&name("org/small")).unwrap();
        assert_eq!(weights_of(&folder), long.as_bytes());
        assert!(shelf.lock().unwrap().asked.iter().any(|r| r.from == Some(30_000)));
    }
    // A hub that always cuts: the tries end, and no file of the wrong size appears.
    let (endpoint, shelf) = serve(&files);
    let cache = tempfile::tempdir().unwrap();
    let weights = |r: &Request| r.path.ends_with("model.safetensors");
    set_rule(&shelf, move |r, _| {
        let reply = Reply::new(200, &[("ETag", "w"), ("X-Repo-Commit", COMMIT)], b"half");
        weights(r).then_some(Reply { length: Some(8), ..reply })
    });
    let e = error_of(&hub(&endpoint, cache.path()), "org/small");
    assert!(e.contains("3 times in a row"), "{e}");
    assert!(!RepoCache::new(cache.path(), "org/small").snapshot(COMMIT).join("model.safetensors").exists());
}

#[test]
fn a_busy_hub_is_asked_again_as_it_wishes() {
    let (endpoint, shelf) = serve(&SMALL);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&endpoint, cache.path());
    for status in [429, 500, 503] {
        let busy = Reply::new(status, &[], b"").header("Retry-After", "0");
        set_rule(&shelf, move |_, _| Some(busy.clone()));
        let e = error_of(&hub, "org/small");
        assert!(e.contains(&format!("{status}")) && e.contains("try again later"), "{e}");
        assert_eq!(shelf.lock().unwrap().asked.len(), 3);
    }
    let long = Reply::new(429, &[], b"").header("Retry-After", "900");
    set_rule(&shelf, move |_, _| Some(long.clone()));
    assert!(error_of(&hub, "org/small").contains("asks to wait 900 s"));
    assert_eq!(shelf.lock().unwrap().asked.len(), 1);
    let start = std::time::Instant::now();
    let short = Reply::new(429, &[], b"").header("Retry-After", "1");
    set_rule(&shelf, move |_, n| (n == 0).then(|| short.clone()));
    assert!(hub.fetch(&name("org/small")).is_ok());
    assert!(start.elapsed() >= Duration::from_secs(1));
}
