use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

fn three() -> Wanted {
    Wanted { count: Some(3), base_port: Some(7600), named: Vec::new() }
}

fn named(servers: &[(&str, &str)]) -> Wanted {
    let named = servers.iter().map(|(n, a)| (n.to_string(), a.to_string())).collect();
    Wanted { named, ..Wanted::default() }
}

/// Every file under a folder with what it holds.
fn contents(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read_to_string(&path).unwrap());
        }
    }
    files
}

#[test]
fn a_second_call_changes_nothing() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let first = init(dir.path(), &three()).unwrap();
    let before = contents(dir.path());

    let again = init(dir.path(), &three()).unwrap();
    init(dir.path(), &Wanted::default()).unwrap();

    assert_eq!(contents(dir.path()), before);
    assert_eq!(again.url(), first.url());
    assert!(first.url().starts_with("chatty://127.0.0.1:7600,127.0.0.1:7601,127.0.0.1:7602/#"));
}

#[test]
fn what_is_missing_comes_back_with_the_same_identity() {
    let dir = TempDir::new().unwrap();
    init(dir.path(), &three()).unwrap();
    let before = contents(dir.path());
    let s2 = Layout::of(dir.path()).server(&Slot::new("s2").unwrap());
    let identity = |cert: &Path| identity_of(&fs::read_to_string(cert).unwrap()).unwrap().0;
    let held = identity(&s2.cert());

    for file in [s2.key(), s2.token_key(), s2.config(), Layout::of(dir.path()).client()] {
        fs::remove_file(&file).unwrap();
        init(dir.path(), &Wanted::default()).unwrap();
        assert!(file == s2.key() || before[&file] == fs::read_to_string(&file).unwrap());
    }
    assert_eq!(identity(&s2.cert()), held);
}

#[test]
fn secrets_are_for_their_owner_alone() {
    let dir = TempDir::new().unwrap();
    init(dir.path(), &three()).unwrap();
    let layout = Layout::of(dir.path());
    let s1 = layout.server(&Slot::new("s1").unwrap());
    for file in [layout.authority_key(), layout.token_key(), s1.key(), s1.token_key()] {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
}

#[test]
fn another_cluster_in_the_same_folder_is_refused_with_the_reason() {
    let dir = TempDir::new().unwrap();
    init(dir.path(), &three()).unwrap();
    let before = contents(dir.path());
    let others = [
        (Wanted { count: Some(5), ..Wanted::default() }, "not 5 servers"),
        (Wanted { base_port: Some(9000), ..Wanted::default() }, "not servers from port 9000 on"),
        (named(&[("s1", "10.0.0.1:7400")]), "not 1 server (s1 at 10.0.0.1:7400)"),
    ];
    for (other, told) in others {
        let error = init(dir.path(), &other).unwrap_err().to_string();
        assert!(error.contains("3 servers") && error.contains(told), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn servers_that_cannot_be_are_refused_before_anything_is_made() {
    let dir = TempDir::new().unwrap();
    let inside = dir.path().join("new");
    let wanted = [
        Wanted { count: Some(0), ..Wanted::default() },
        Wanted { count: Some(65), ..Wanted::default() },
        Wanted { base_port: Some(65_535), ..Wanted::default() },
        named(&[("s1", "a:1"), ("s1", "b:1")]),
        named(&[("s1", "nowhere")]),
        named(&[("S 1", "a:1")]),
    ];
    for wanted in wanted {
        assert!(matches!(init(&inside, &wanted), Err(InitError::Wanted(_))), "{wanted:?}");
    }
    assert!(!inside.exists());
}

#[test]
fn a_named_server_listens_at_its_address_or_on_all_of_them() {
    let dir = TempDir::new().unwrap();
    let wanted = named(&[("s1", "10.0.0.1:7400"), ("eu-2", "chat.example.org:7500")]);
    let cluster = init(dir.path(), &wanted).unwrap();
    let listen = |at: usize| {
        let name = &cluster.servers[at].name;
        config::load(&cluster.layout.server(name).config()).unwrap().listen.to_string()
    };
    assert_eq!([listen(0), listen(1)], ["10.0.0.1:7400", "0.0.0.0:7500"]);
}

#[test]
fn a_reissue_is_the_next_generation_of_the_same_slot() {
    let dir = TempDir::new().unwrap();
    init(dir.path(), &three()).unwrap();
    let first = reissue(dir.path(), "s2").unwrap();
    let second = reissue(dir.path(), "s2").unwrap();
    assert_eq!((first.generation, second.generation), (1, 2));
    assert_ne!(first.server, second.server);

    let s2 = Layout::of(dir.path()).server(&Slot::new("s2").unwrap());
    let pem = fs::read_to_string(s2.cert()).unwrap();
    assert_eq!(identity_of(&pem).unwrap().0, second);
    init(dir.path(), &Wanted::default()).unwrap();
    assert_eq!(fs::read_to_string(s2.cert()).unwrap(), pem, "init keeps the newest");

    let error = reissue(dir.path(), "s9").unwrap_err().to_string();
    assert_eq!(error, "the cluster has no server s9; it has s1, s2, s3");
}

#[test]
fn parts_of_another_cluster_are_told_before_anything_is_made() {
    for part in ["client.toml", "token.key", "servers/s1/server.toml"] {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join(part);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "of another").unwrap();
        let before = contents(dir.path());

        let error = init(dir.path(), &three()).unwrap_err().to_string();

        assert!(error.contains("cluster.toml or take another folder"), "{error}");
        assert_eq!(contents(dir.path()), before);
    }
}
