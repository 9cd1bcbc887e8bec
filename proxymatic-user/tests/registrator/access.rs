//! Getting in: users of both APIs, and certificates.

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

async fn lets_in_users_only(v2: bool) {
    let mut etcd = Etcd::start(v2, false).await;
    etcd.put(WEB, "10.0.0.1:31000").await;
    etcd.close().await;
    let url = format!("etcd://127.0.0.1:{}/services", etcd.port);
    let said = Source::of(&url).trouble().await;
    assert!(said.contains("requires credentials") && said.contains("--registrator-credentials-file"), "{said}");
    let said = Source::with(&url, &credentials(&etcd, "guessed")).trouble().await;
    assert!(said.contains("does not accept the credentials") && !said.contains("guessed"), "{said}");

    let mut by_file = Source::with(&url, &credentials(&etcd, AGENT.1));
    let mut by_url = Source::of(&url.replace("://", "://agent:a%2Fs%3Ae%40c@"));
    for source in [&mut by_file, &mut by_url] {
        source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    }
    etcd.put(WEB, "10.0.0.1:31001").await;
    for source in [&mut by_file, &mut by_url] {
        source.sees(&["web 80/tcp 10.0.0.1:31001"]).await;
    }
    // It forgets who has logged in.
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
async fn v2_lets_in_users_only() {
    lets_in_users_only(true).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn v3_lets_in_users_only() {
    lets_in_users_only(false).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn credentials_that_nobody_asks_for_do_no_harm() {
    for v2 in [true, false] {
        let etcd = Etcd::start(v2, false).await;
        etcd.put(WEB, "10.0.0.1:31000").await;
        let url = format!("etcd://127.0.0.1:{}/services", etcd.port);
        Source::with(&url, &credentials(&etcd, AGENT.1)).sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    }
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn tls_is_believed_only_where_the_named_authority_has_signed() {
    for v2 in [true, false] {
        let mut etcd = Etcd::start(v2, true).await;
        etcd.put(WEB, "10.0.0.1:31000").await;
        etcd.close().await;
        let url = format!("https://127.0.0.1:{}/services", etcd.port);
        let files = credentials(&etcd, AGENT.1);
        let said = Source::with(&url, &files).trouble().await;
        assert!(said.contains("cannot be trusted over TLS") && said.contains("--registrator-ca-cert"), "{said}");
        let files = AccessFiles { ca_cert: Some(etcd.certificate()), ..files };
        let mut source = Source::with(&url, &files);
        source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
        etcd.put(WEB, "10.0.0.1:31001").await;
        source.sees(&["web 80/tcp 10.0.0.1:31001"]).await;
        let said = Source::with(&url.replace("127.0.0.1", "localhost"), &files).trouble().await;
        assert!(said.contains("write the name that its certificate has in --registrator"), "{said}");
    }
}
