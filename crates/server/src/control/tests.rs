use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;

use super::*;

fn long_folder(dir: &Path) -> std::path::PathBuf {
    let deep = dir.join("a".repeat(120)).join("b".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    deep
}

#[tokio::test]
async fn the_socket_is_private_replaces_a_stale_one_and_may_lie_deep() {
    let dir = TempDir::new().unwrap();
    for folder in [dir.path().to_owned(), long_folder(dir.path())] {
        let file = folder.join("control.sock");
        // What a killed process leaves.
        let stale = Socket::bind(&folder).unwrap();
        std::mem::forget(stale);
        assert!(file.exists());

        let socket = Socket::bind(&folder).unwrap();
        let mode = std::fs::symlink_metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let connected = socket::connect(&folder).unwrap();
        let accepted = socket.listener().accept().await.unwrap();
        drop((connected, accepted, socket));

        assert!(!file.exists(), "no server, no socket");
        assert!(socket::connect(&folder).is_err());
    }
}

/// What the door answers to a line.
async fn answer(line: &[u8]) -> String {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut link = Link::new(ours);
    let (mut to, line) = (BufReader::new(theirs), line.to_owned());
    let asking = tokio::spawn(async move {
        to.write_all(&line).await.unwrap();
        let mut reply = String::new();
        to.read_line(&mut reply).await.unwrap();
        reply
    });
    let line = link.line().await.unwrap();
    let reply = match serde_json::from_str::<Command>(&line) {
        Ok(command) => Reply::Done(format!("{command:?}")),
        Err(error) => Reply::Error(error.to_string()),
    };
    link.say(&reply).await.unwrap();
    asking.await.unwrap()
}

#[tokio::test]
async fn a_command_is_one_bounded_line_that_says_what_to_do() {
    let good = answer(b"{\"do\":\"drain\",\"limit_ms\":5}\n").await;
    assert_eq!(good, "{\"done\":\"Drain { limit_ms: 5, otherwise: Resume }\"}\n");
    let forced = answer(b"{\"do\":\"drain\",\"limit_ms\":5,\"otherwise\":\"stop\"}\n").await;
    assert_eq!(forced, "{\"done\":\"Drain { limit_ms: 5, otherwise: Stop }\"}\n");
    let endless = vec![b' '; 10_000];
    for bad in [&b"{\"do\":\"dance\"}\n"[..], b"\n", b"{\"do\":\"drain\"}\n", &endless] {
        let reply = answer(bad).await;
        assert!(reply.starts_with("{\"error\":"), "{reply}");
    }
}
