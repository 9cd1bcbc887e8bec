//! Answers of etcd that lack more than they should. Needs no etcd: whoever answers tells what it is told to tell.

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
/// So long that nothing which is doubted is ever believed.
const NEVER: Duration = Duration::from_secs(3600);

const FULL: &str = "web 80/tcp 10.0.0.1:31001 10.0.0.1:31002 10.0.0.1:31003 10.0.0.1:31004";

/// What it answers, and how often that has changed.
#[derive(Clone, Default)]
struct Folder {
    index: u64,
    /// The ports of the containers of one service; `None`: every answer is 500.
    ports: Option<Vec<u16>>,
}

/// An etcd as far as the source can tell.
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

    /// From now on there are these. Watches notice.
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

/// A source that has seen four containers, and what it said of them.
async fn watching(confirm: Duration) -> (Fake, Source, Snapshot) {
    let fake = Fake::start(&[31001, 31002, 31003, 31004]).await;
    let mut source = Source::doubting(&fake.url, confirm, Snapshot::default());
    let said = source.sees(&[FULL]).await;
    (fake, source, said)
}

/// The next snapshot must have all four and warn.
async fn doubts(source: &mut Source) {
    let doubted = source.snapshot().await;
    assert_eq!(shown(&doubted), [FULL]);
    let reasons: Vec<_> = doubted.warnings.iter().map(|it| &it.reason[..]).collect();
    assert!(matches!(reasons[..], [one] if one.contains("service 80/tcp lost more than half")), "{reasons:?}");
}

#[tokio::test]
async fn an_answer_without_more_than_half_of_the_backends_is_believed_only_if_it_is_given_twice() {
    let (fake, mut source, _) = watching(CONFIRM).await;
    let begin = Instant::now();
    fake.has(Some(&[31001]));
    doubts(&mut source).await;
    // Nothing changes in etcd: it is asked again all the same.
    let after = source.snapshot().await;
    assert_eq!((shown(&after), after.warnings), (vec!["web 80/tcp 10.0.0.1:31001".to_owned()], vec![]));
    assert!(begin.elapsed() >= CONFIRM);
}

#[tokio::test]
async fn an_empty_folder_for_a_moment_takes_nothing() {
    let (fake, mut source, _) = watching(NEVER).await;
    fake.has(Some(&[]));
    doubts(&mut source).await;
    fake.has(Some(&[31001, 31002, 31003, 31004]));
    let after = source.snapshot().await;
    assert_eq!((shown(&after), after.warnings), (vec![FULL.to_owned()], vec![]));
}

#[tokio::test]
async fn an_empty_folder_that_stays_is_believed_by_the_second_answer() {
    let (fake, mut source, _) = watching(CONFIRM).await;
    fake.has(Some(&[]));
    doubts(&mut source).await;
    assert!(shown(&source.snapshot().await).is_empty());
}

#[tokio::test]
async fn an_etcd_that_fails_while_it_is_doubted_takes_nothing() {
    let (fake, mut source, _) = watching(CONFIRM).await;
    fake.has(Some(&[]));
    doubts(&mut source).await;
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
async fn half_of_the_backends_may_go_at_once_and_others_take_their_place() {
    let (fake, mut source, _) = watching(NEVER).await;
    fake.has(Some(&[31001, 31002]));
    source.sees(&["web 80/tcp 10.0.0.1:31001 10.0.0.1:31002"]).await;
    fake.has(Some(&[31005, 31006]));
    source.sees(&["web 80/tcp 10.0.0.1:31005 10.0.0.1:31006"]).await;
}

#[tokio::test]
async fn the_first_answer_is_measured_by_what_was_published_before() {
    let (fake, source, published) = watching(NEVER).await;
    drop(source);
    fake.has(Some(&[]));
    let mut source = Source::doubting(&fake.url, CONFIRM, published);
    doubts(&mut source).await;
    assert!(shown(&source.snapshot().await).is_empty());
}

#[tokio::test]
async fn an_empty_folder_is_believed_at_once_where_nothing_was_published() {
    let fake = Fake::start(&[]).await;
    let first = Source::doubting(&fake.url, NEVER, Snapshot::default()).snapshot().await;
    assert_eq!(first, Snapshot::default());
}
