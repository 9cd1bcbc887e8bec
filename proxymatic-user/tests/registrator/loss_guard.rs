//! Responses of etcd that lost backends. Needs no etcd: a server of the test sends them.

use std::time::{Duration, Instant};

use proxymatic_user::{model::Snapshot, source::Report};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::watch::{Source, shown};

const CONFIRM: Duration = Duration::from_millis(300);
/// A time so long that no loss is ever confirmed.
const NEVER: Duration = Duration::from_secs(3600);

const FULL: &str = "web 80/tcp 10.0.0.1:31001 10.0.0.1:31002 10.0.0.1:31003 10.0.0.1:31004";

/// The response of the server, and the number of changes.
#[derive(Clone, Default)]
struct Folder {
    index: u64,
    /// The ports of the containers of one service; `None` if each response is 500.
    ports: Option<Vec<u16>>,
}

/// A server that looks like an etcd to the source.
struct Fake {
    url: String,
    folder: watch::Sender<Folder>,
}

impl Fake {
    async fn start(ports: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("etcd://{}/s", listener.local_addr().unwrap());
        let (folder, told) = watch::channel(Folder { index: 1, ports: Some(ports.into()) });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, told.clone()));
            }
        });
        Self { url, folder }
    }

    /// Sets the containers, and wakes all watches.
    fn has(&self, ports: Option<&[u16]>) {
        self.folder.send_modify(|folder| {
            *folder = Folder { index: folder.index + 1, ports: ports.map(Into::into) };
        });
    }
}

async fn answer(mut stream: TcpStream, mut told: watch::Receiver<Folder>) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).await.unwrap_or_default();
    let request = String::from_utf8_lossy(&request[..length]);
    let wait = request.split_once("waitIndex=").and_then(|(_, rest)| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    });
    let Folder { index, ports } = told.wait_for(|folder| folder.index >= wait.unwrap_or(0)).await.unwrap().clone();
    let (status, body) = match ports {
        _ if !request.starts_with("GET /v2/") => ("404 Not Found", String::new()),
        None => ("500 Internal Server Error", String::new()),
        Some(ports) => ("200 OK", listing(&ports)),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nX-Etcd-Index: {index}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
}

fn listing(ports: &[u16]) -> String {
    let node = |port: &u16| json!({ "key": format!("/s/web/h:c{port}:80"), "value": format!("10.0.0.1:{port}") });
    let nodes: Vec<_> = ports.iter().map(node).collect();
    json!({ "action": "get", "node": { "key": "/s", "dir": true, "nodes": nodes } }).to_string()
}

/// Returns a source that has seen four containers, and its snapshot.
async fn watching(confirm: Duration) -> (Fake, Source, Snapshot) {
    let fake = Fake::start(&[31001, 31002, 31003, 31004]).await;
    let mut source = Source::with_confirm(&fake.url, confirm, Snapshot::default());
    let snapshot = source.sees(&[FULL]).await;
    (fake, source, snapshot)
}

/// Requires that the next snapshot has all four containers and a warning.
async fn keeps_all(source: &mut Source) {
    let snapshot = source.snapshot().await;
    assert_eq!(shown(&snapshot), [FULL]);
    let reasons: Vec<_> = snapshot.warnings.iter().map(|it| &it.reason[..]).collect();
    assert!(matches!(reasons[..], [one] if one.contains("service 80/tcp lost more than half")), "{reasons:?}");
}

#[tokio::test]
async fn loss_of_more_than_half_needs_a_second_response() {
    let (fake, mut source, _) = watching(CONFIRM).await;
    let begin = Instant::now();
    fake.has(Some(&[31001]));
    keeps_all(&mut source).await;
    // The source reads again although nothing changes in etcd.
    let after = source.snapshot().await;
    assert_eq!((shown(&after), after.warnings), (vec!["web 80/tcp 10.0.0.1:31001".to_owned()], vec![]));
    assert!(begin.elapsed() >= CONFIRM);
}

#[tokio::test]
async fn empty_folder_for_a_moment_removes_nothing() {
    let (fake, mut source, _) = watching(NEVER).await;
    fake.has(Some(&[]));
    keeps_all(&mut source).await;
    fake.has(Some(&[31001, 31002, 31003, 31004]));
    let after = source.snapshot().await;
    assert_eq!((shown(&after), after.warnings), (vec![FULL.to_owned()], vec![]));
}

#[tokio::test]
async fn empty_folder_counts_after_a_second_response() {
    let (fake, mut source, _) = watching(CONFIRM).await;
    fake.has(Some(&[]));
    keeps_all(&mut source).await;
    assert!(shown(&source.snapshot().await).is_empty());
}

#[tokio::test]
async fn etcd_that_fails_during_a_loss_removes_nothing() {
    let (fake, mut source, _) = watching(CONFIRM).await;
    fake.has(Some(&[]));
    keeps_all(&mut source).await;
    fake.has(None);
    for _ in 0..3 {
        match source.next().await {
            Report::Failed { reason, .. } => assert!(reason.contains("answered 500"), "{reason}"),
            Report::Snapshot { snapshot, .. } => panic!("{snapshot:?}"),
        }
    }
    fake.has(Some(&[31001, 31002, 31003, 31004]));
    assert_eq!(shown(&source.snapshot().await), [FULL]);
}

#[tokio::test]
async fn half_of_the_backends_may_go_at_once() {
    let (fake, mut source, _) = watching(NEVER).await;
    fake.has(Some(&[31001, 31002]));
    source.sees(&["web 80/tcp 10.0.0.1:31001 10.0.0.1:31002"]).await;
    fake.has(Some(&[31005, 31006]));
    source.sees(&["web 80/tcp 10.0.0.1:31005 10.0.0.1:31006"]).await;
}

#[tokio::test]
async fn first_response_is_compared_with_adopted_services() {
    let (fake, source, published) = watching(NEVER).await;
    drop(source);
    fake.has(Some(&[]));
    let mut source = Source::with_confirm(&fake.url, CONFIRM, published);
    keeps_all(&mut source).await;
    assert!(shown(&source.snapshot().await).is_empty());
}

#[tokio::test]
async fn empty_folder_counts_at_once_without_adopted_services() {
    let fake = Fake::start(&[]).await;
    let first = Source::with_confirm(&fake.url, NEVER, Snapshot::default()).snapshot().await;
    assert_eq!(first, Snapshot::default());
}
