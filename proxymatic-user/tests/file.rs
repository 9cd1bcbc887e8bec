//! The file source with real files, which each test changes in another way.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proxymatic_user::{
    model::Snapshot,
    source::{
        Report,
        file::{self, Config},
    },
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

const EVERY: Duration = Duration::from_millis(20);

fn text(ports: &[u16]) -> String {
    let service = |port: &u16| {
        format!(
            "[[services]]\nname = \"s{port}\"\nport = {port}\nbackends = [{{ address = \"10.0.0.1\", port = {port} }}]\n"
        )
    };
    if ports.is_empty() { "services = []\n".into() } else { ports.iter().map(service).collect() }
}

fn ports(snapshot: &Snapshot) -> Vec<u16> {
    snapshot.services.keys().map(|key| key.port).collect()
}

struct Source {
    reports: mpsc::Receiver<Report>,
    task: JoinHandle<()>,
}

impl Source {
    fn of(path: &Path) -> Self {
        let (send, reports) = mpsc::channel(8);
        let config = Config { every: EVERY, ..Config::new(path).unwrap() };
        Self { reports, task: tokio::spawn(file::run(config, send)) }
    }

    async fn next(&mut self) -> Report {
        timeout(Duration::from_secs(30), self.reports.recv()).await.expect("no report within 30 s").unwrap()
    }

    async fn sees(&mut self, expected: &[u16]) {
        match self.next().await {
            Report::Snapshot { snapshot, .. } => assert_eq!(ports(&snapshot), expected),
            trouble @ Report::Failed { .. } => panic!("{trouble:?} instead of {expected:?}"),
        }
    }

    async fn failure(&mut self) -> String {
        match self.next().await {
            Report::Failed { reason, .. } => reason,
            Report::Snapshot { snapshot, .. } => panic!("{:?} instead of trouble", ports(&snapshot)),
        }
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.toml");
    (folder, path)
}

/// Replaces a file by a rename, as editors and deployment tools do.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn missing_file_is_a_failure_until_it_exists() {
    let (_folder, path) = folder();
    let mut source = Source::of(&path);
    let reason = source.failure().await;
    assert!(reason.contains("services.toml does not exist"), "{reason}");
    fs::write(&path, text(&[1])).unwrap();
    source.sees(&[1]).await;
}

#[tokio::test]
async fn edits_in_place_and_atomic_renames_are_seen() {
    let (_folder, path) = folder();
    fs::write(&path, text(&[1])).unwrap();
    let mut source = Source::of(&path);
    source.sees(&[1]).await;
    fs::write(&path, text(&[2])).unwrap();
    source.sees(&[2]).await;
    replace(&path, &text(&[2, 3]));
    source.sees(&[2, 3]).await;
    replace(&path, &text(&[]));
    source.sees(&[]).await;
}

/// `services.toml -> ..data/services.toml`, `..data -> ..2026_1`: kubelet changes only the link `..data`.
#[tokio::test]
async fn changed_link_in_the_path_is_seen() {
    let (folder, path) = folder();
    let data = folder.path().join("..data");
    for (version, services) in [("..1", text(&[1])), ("..2", text(&[2]))] {
        fs::create_dir(folder.path().join(version)).unwrap();
        fs::write(folder.path().join(version).join("services.toml"), services).unwrap();
    }
    symlink("..1", &data).unwrap();
    symlink("..data/services.toml", &path).unwrap();
    let mut source = Source::of(&path);
    source.sees(&[1]).await;
    symlink("..2", folder.path().join("..new")).unwrap();
    fs::rename(folder.path().join("..new"), &data).unwrap();
    source.sees(&[2]).await;
}

#[tokio::test]
async fn invalid_file_is_a_failure_and_no_snapshot() {
    let (_folder, path) = folder();
    fs::write(&path, text(&[1])).unwrap();
    let mut source = Source::of(&path);
    source.sees(&[1]).await;
    for (content, part) in [
        (text(&[1]).replace("port = 1\n", "prot = 1\n"), "services.toml line 3: unknown field `prot`"),
        (String::new(), "missing field `services`"),
        ("<html>".to_owned(), "services.toml line 1: "),
    ] {
        replace(&path, &content);
        let reason = source.failure().await;
        assert!(reason.contains(part), "{reason}");
    }
    fs::remove_file(&path).unwrap();
    assert!(source.failure().await.contains("does not exist"));
    // The same content as before is reported again, which ends the failure.
    fs::write(&path, text(&[1])).unwrap();
    source.sees(&[1]).await;
}

#[tokio::test]
async fn file_that_is_being_written_is_never_half_read() {
    // After a pause of 100 ms, the lines so far count as the whole file.
    const PAUSE: Duration = Duration::from_millis(80);
    let (_folder, path) = folder();
    loop {
        fs::write(&path, text(&[1, 2])).unwrap();
        let mut source = Source::of(&path);
        source.sees(&[1, 2]).await;
        // The file is written in place, line by line. The first four lines are a valid file by themselves.
        let whole = text(&[3, 4]);
        let (mut written, mut longest) = (Instant::now(), Duration::ZERO);
        let mut file = fs::File::create(&path).unwrap();
        let mut clock = tokio::time::interval(EVERY);
        for line in whole.split_inclusive('\n') {
            clock.tick().await;
            file.write_all(line.as_bytes()).unwrap();
            longest = longest.max(written.elapsed());
            written = Instant::now();
        }
        // If this machine has stalled, the file is written once more.
        if longest < PAUSE {
            source.sees(&[3, 4]).await;
            return;
        }
    }
}

#[tokio::test]
async fn folder_is_a_failure_and_source_ends_with_its_receiver() {
    let (folder, _) = folder();
    let path = folder.path().join("folder.json");
    fs::create_dir(&path).unwrap();
    let mut source = Source::of(&path);
    assert!(source.failure().await.contains("it is not a file"));
    drop(source.reports);
    timeout(Duration::from_secs(30), source.task).await.expect("still runs").unwrap();
}

#[tokio::test]
async fn host_name_without_an_address_costs_only_itself() {
    let (_folder, path) = folder();
    let named = text(&[1]).replace("10.0.0.1", "localhost") + &text(&[2]).replace("10.0.0.1", "not-there.invalid");
    fs::write(&path, named).unwrap();
    match Source::of(&path).next().await {
        Report::Snapshot { snapshot, .. } => {
            let addresses = |port| {
                let service = snapshot.services.iter().find(|(key, _)| key.port == port).unwrap().1;
                service.backends.iter().map(|it| it.address.to_string()).collect::<Vec<_>>()
            };
            assert_eq!((addresses(1), addresses(2)), (vec!["127.0.0.1".to_owned()], Vec::new()));
            assert_eq!(snapshot.warnings.len(), 1, "{:?}", snapshot.warnings);
            let reason = &snapshot.warnings[0].reason;
            assert!(
                reason.starts_with("backend not-there.invalid:2: \"not-there.invalid\" has no address: "),
                "{reason}"
            );
        }
        trouble @ Report::Failed { .. } => panic!("{trouble:?}"),
    }
}
