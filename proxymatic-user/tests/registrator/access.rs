//! The access to etcd: users of both APIs, and certificates.

use proxymatic_user::source::registrator::AccessFiles;

use crate::{
    etcd::{AGENT, Etcd},
    watch::Source,
};

const WEB: &str = "/services/web/h1:web.1:80";

fn credentials(etcd: &Etcd, password: &str) -> AccessFiles {
    let path = etcd.folder.path().join("credentials");
    std::fs::write(&path, format!("{}:{password}\n", AGENT.0)).unwrap();
    AccessFiles { credentials: Some(path), ..AccessFiles::default() }
}

async fn requires_credentials(v2: bool) {
    let mut etcd = Etcd::start(v2, false).await;
    etcd.put(WEB, "10.0.0.1:31000").await;
    etcd.close().await;
    let url = format!("etcd://127.0.0.1:{}/services", etcd.port);
    let reason = Source::of(&url).failure().await;
    assert!(reason.contains("requires credentials") && reason.contains("--registrator-credentials-file"), "{reason}");
    let reason = Source::with(&url, &credentials(&etcd, "guessed")).failure().await;
    assert!(reason.contains("does not accept the credentials") && !reason.contains("guessed"), "{reason}");

    let mut by_file = Source::with(&url, &credentials(&etcd, AGENT.1));
    let mut by_url = Source::of(&url.replace("://", "://agent:a%2Fs%3Ae%40c@"));
    for source in [&mut by_file, &mut by_url] {
        source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    }
    etcd.put(WEB, "10.0.0.1:31001").await;
    for source in [&mut by_file, &mut by_url] {
        source.sees(&["web 80/tcp 10.0.0.1:31001"]).await;
    }
    // A restart invalidates the tokens.
    etcd.stop();
    etcd.restart().await;
    etcd.put(WEB, "10.0.0.1:31002").await;
    for source in [&mut by_file, &mut by_url] {
        source.sees(&["web 80/tcp 10.0.0.1:31002"]).await;
    }
    etcd.put(WEB, "10.0.0.1:31003").await;
    by_file.sees(&["web 80/tcp 10.0.0.1:31003"]).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn v2_with_users_requires_credentials() {
    requires_credentials(true).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn v3_with_users_requires_credentials() {
    requires_credentials(false).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn credentials_without_users_do_no_harm() {
    for v2 in [true, false] {
        let etcd = Etcd::start(v2, false).await;
        etcd.put(WEB, "10.0.0.1:31000").await;
        let url = format!("etcd://127.0.0.1:{}/services", etcd.port);
        Source::with(&url, &credentials(&etcd, AGENT.1)).sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn tls_trusts_only_the_named_authority() {
    for v2 in [true, false] {
        let mut etcd = Etcd::start(v2, true).await;
        etcd.put(WEB, "10.0.0.1:31000").await;
        etcd.close().await;
        let url = format!("https://127.0.0.1:{}/services", etcd.port);
        let files = credentials(&etcd, AGENT.1);
        let reason = Source::with(&url, &files).failure().await;
        assert!(reason.contains("cannot be trusted over TLS") && reason.contains("--registrator-ca-cert"), "{reason}");
        let files = AccessFiles { ca_cert: Some(etcd.certificate()), ..files };
        let mut source = Source::with(&url, &files);
        source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
        etcd.put(WEB, "10.0.0.1:31001").await;
        source.sees(&["web 80/tcp 10.0.0.1:31001"]).await;
        let reason = Source::with(&url.replace("127.0.0.1", "localhost"), &files).failure().await;
        assert!(reason.contains("write the name that its certificate has in --registrator"), "{reason}");
    }
}
