//! The access to Marathon: credentials, service accounts, certificates and redirects.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command, sync::Arc};

use marathon_sim::{Guard, Place, ShortApp, Sim};
use proxymatic_user::{
    model::State::Active,
    source::{Report, marathon::AccessFiles},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use crate::watch::{Source, quick};

/// A key made for tests.
const KEY: &str = include_str!("../../src/source/marathon/dcos/test-key.pem");

/// A file that only its owner can read.
fn file(folder: &TempDir, name: &str, text: &str) -> Option<PathBuf> {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    Some(path)
}

fn basic(folder: &TempDir, line: &str) -> AccessFiles {
    AccessFiles { credentials: file(folder, "credentials", line), ..AccessFiles::default() }
}

fn account(folder: &TempDir, sim: &Sim) -> AccessFiles {
    let secret = json!({"uid": "agent", "private_key": KEY, "scheme": "RS256",
        "login_endpoint": format!("{}/acs/api/v1/auth/login", sim.url())});
    AccessFiles { service_account: file(folder, "account", &secret.to_string()), ..AccessFiles::default() }
}

async fn cluster(guard: Guard) -> (Sim, TempDir) {
    let sim = Sim::start().await.expect("a simulator");
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).expect("an app");
    sim.guard(guard);
    (sim, tempfile::tempdir().expect("a folder"))
}

/// Returns the authorizations of all requests, in order, without repetitions.
fn shown(sim: &Sim) -> Vec<Option<String>> {
    let mut shown: Vec<_> = sim.log().into_iter().map(|it| it.authorization).collect();
    shown.dedup();
    shown
}

#[tokio::test]
async fn credentials_of_a_file_are_sent_to_the_leader_too() {
    let (sim, folder) = cluster(Guard::Basic("me:a:b".into())).await;
    let standby = sim.node().await.unwrap();
    let urls = [standby.url(), sim.url()];
    let mut source = Source::with(&urls, quick(), &basic(&folder, "me:a:b\n"));
    source.sees(1234, &[(8080, Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    assert_eq!(shown(&sim), [Some("Basic bWU6YTpi".into())]);
}

#[tokio::test]
async fn redirect_to_an_unknown_host_goes_without_credentials() {
    let (sim, folder) = cluster(Guard::Basic("me:secret".into())).await;
    let standby = sim.node().await.unwrap();
    let mut source = Source::with(&[standby.url()], quick(), &basic(&folder, "me:secret"));
    source.sees(1234, &[(8080, Active)]).await;
    let (url, reason) = source.failure(1).await;
    assert!(url.starts_with(&sim.url()) && reason.contains("so add this one there"), "{reason}");
    let at_leader = sim.log().into_iter().filter(|it| it.node == sim.addr.to_string());
    assert!(at_leader.map(|it| it.authorization).all(|shown| shown.is_none()));
}

#[tokio::test]
async fn wrong_and_missing_credentials_have_different_errors() {
    let (sim, folder) = cluster(Guard::Basic("me:secret".into())).await;
    let (_, reason) = Source::with(&[sim.url()], quick(), &basic(&folder, "me:wrong")).failure(0).await;
    assert!(reason.contains("does not accept the credentials (401"), "{reason}");
    let (_, reason) = Source::of(&sim).failure(0).await;
    assert!(reason.contains("requires credentials (401") && reason.contains("--marathon-credentials-file"), "{reason}");
    sim.guard(Guard::Open);
    Source::of(&sim).sees(1234, &[(8080, Active)]).await;
}

#[tokio::test]
async fn service_account_logs_in_once() {
    let (sim, folder) = cluster(Guard::Account { uid: "agent".into(), seconds: None }).await;
    let mut source = Source::with(&[sim.url()], quick(), &account(&folder, &sim));
    source.sees(1234, &[(8080, Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    let shown = shown(&sim);
    assert!(shown.len() == 1 && shown[0].as_ref().is_some_and(|it| it.starts_with("token=")), "{shown:?}");
}

#[tokio::test]
async fn refused_token_is_renewed_without_losing_a_backend() {
    let guard = || Guard::Account { uid: "agent".into(), seconds: None };
    let (sim, folder) = cluster(guard()).await;
    let mut source = Source::with(&[sim.url()], quick(), &account(&folder, &sim));
    source.sees(1234, &[(8080, Active)]).await;
    source.live(&[8080]);
    sim.guard(guard());
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    // The event alone started the task. The next read sends the second token.
    while shown(&sim).len() < 2 {
        source.next().await;
    }
}

#[tokio::test]
async fn token_is_renewed_before_it_expires() {
    let (sim, folder) = cluster(Guard::Account { uid: "agent".into(), seconds: Some(3) }).await;
    let mut source = Source::with(&[sim.url()], quick(), &account(&folder, &sim));
    source.sees(1234, &[(8080, Active)]).await;
    source.live(&[8080]);
    // A token that had expired would be refused, and that would be a report.
    while shown(&sim).len() < 2 {
        sim.close_streams();
        if let Report::Failed { reason, .. } = source.next().await {
            assert!(!reason.contains("(401"), "{reason}");
        }
    }
}

#[tokio::test]
async fn unknown_service_account_is_reported() {
    let (sim, folder) = cluster(Guard::Account { uid: "another".into(), seconds: None }).await;
    let mut source = Source::with(&[sim.url()], quick(), &account(&folder, &sim));
    let (url, reason) = source.failure(0).await;
    assert!(url.ends_with("/acs/api/v1/auth/login"), "{url}");
    assert!(reason.contains("does not accept the service account \"agent\" (401"), "{reason}");
    assert_eq!(sim.log(), []);
}

/// Starts a server that terminates TLS in front of a simulator. Returns its URL, and the certificate of its authority.
async fn over_tls(sim: &Sim, name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a good certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
    let (acceptor, to) = (TlsAcceptor::from(Arc::new(config)), sim.addr);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut tls), Ok(mut plain)) = (acceptor.accept(socket).await, TcpStream::connect(to).await) else {
                    return;
                };
                // It ends with either connection.
                let _ = copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    (url, made.cert.pem())
}

#[tokio::test]
async fn named_authority_is_trusted_over_tls() {
    let (sim, folder) = cluster(Guard::Basic("me:secret".into())).await;
    let (url, pem) = over_tls(&sim, "localhost").await;
    let files = AccessFiles { ca_cert: file(&folder, "ca", &pem), ..basic(&folder, "me:secret") };
    let mut source = Source::with(&[url], quick(), &files);
    source.sees(1234, &[(8080, Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
}

#[tokio::test]
async fn other_authorities_are_not_trusted_over_tls() {
    let (sim, folder) = cluster(Guard::Open).await;
    let (url, _) = over_tls(&sim, "localhost").await;
    let (_, another) = over_tls(&sim, "localhost").await;
    let files = AccessFiles { ca_cert: file(&folder, "ca", &another), ..AccessFiles::default() };
    let (_, reason) = Source::with(std::slice::from_ref(&url), quick(), &files).failure(0).await;
    assert!(reason.contains("cannot be trusted over TLS") && reason.contains("--marathon-ca-cert"), "{reason}");
    let (url, pem) = over_tls(&sim, "marathon.example").await;
    let files = AccessFiles { ca_cert: file(&folder, "ca", &pem), ..AccessFiles::default() };
    let (_, reason) = Source::with(&[url], quick(), &files).failure(0).await;
    assert!(reason.contains("write the name that its certificate has"), "{reason}");
    assert_eq!(sim.log(), []);
}

#[tokio::test]
async fn redirect_from_https_to_http_goes_without_credentials() {
    // The leader is configured, but the redirect leaves TLS.
    let (sim, folder) = cluster(Guard::Basic("me:secret".into())).await;
    let standby = sim.node().await.unwrap();
    let (url, pem) = over_tls(&sim, "localhost").await;
    sim.elect(Some(&standby.addr.to_string()));
    let files = AccessFiles { ca_cert: file(&folder, "ca", &pem), ..basic(&folder, "me:secret") };
    let mut source = Source::with(&[url, standby.url()], quick(), &files);
    source.sees(1234, &[(8080, Active)]).await;
    let hop = sim.log().into_iter().filter(|it| it.path == "/v2/events" && it.node == standby.addr.to_string());
    assert_eq!(hop.map(|it| it.authorization).next(), Some(None));
}

#[test]
fn invalid_files_end_the_start_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let empty = file(&folder, "empty", "").unwrap();
    for (flag, says) in [
        ("--marathon-credentials-file", "has no user:password on its first line"),
        ("--dcos-service-account", "is not the JSON of a service account"),
        ("--marathon-ca-cert", "has no certificate"),
    ] {
        for (path, says) in [(empty.clone(), says), (folder.path().join("absent"), "No such file")] {
            let run = Command::new(env!("CARGO_BIN_EXE_proxymatic"))
                .args(["run", "--marathon", "http://127.0.0.1:1", flag])
                .arg(&path)
                .args(["--bpffs", "/nowhere", "--cgroup", "/nowhere"])
                .output()
                .unwrap();
            let reason = String::from_utf8_lossy(&run.stderr).into_owned();
            assert_eq!(run.status.code(), Some(2), "{reason}");
            let line = format!("{flag} {}: ", path.display());
            assert!(reason.contains(&line) && reason.contains(says) && reason.lines().count() == 1, "{reason}");
        }
    }
}
