//! The resolver against a name server with answers that a test sets.

use std::net::Ipv4Addr;

use super::{server::server, *};

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn address_is_used_for_its_time_to_live_within_bounds() {
    let server = server().await;
    let mut resolver = server.resolver();
    let names = names(&["a1.example."]);
    let second = Duration::from_secs(1);
    for (ttl, fresh) in [(60, 60 * second), (0, 5 * second), (86_400, 300 * second)] {
        *server.reply.lock().unwrap() = Some(Some(([192, 0, 2, 1], ttl)));
        let before = Instant::now();
        assert_eq!(resolver.resolve(&names).await["a1.example."], Ok([192, 0, 2, 1].into()));
        let after = Instant::now();
        let queries = *server.queries.lock().unwrap();
        assert_eq!(resolver.resolve(&names).await["a1.example."], Ok([192, 0, 2, 1].into()));
        assert_eq!(*server.queries.lock().unwrap(), queries, "queried again at once");
        let entry = resolver.known.get_mut("a1.example.").unwrap();
        let next = entry.next_query;
        assert!(next >= before + fresh - second && next <= after + fresh, "{ttl}: {:?}", next - before);
        entry.next_query = Instant::now();
    }
    *server.reply.lock().unwrap() = Some(Some(([192, 0, 2, 9], 60)));
    assert_eq!(resolver.resolve(&names).await["a1.example."], Ok([192, 0, 2, 9].into()));
}

#[tokio::test]
async fn known_address_outlives_its_name_server_and_its_name() {
    let server = server().await;
    let mut resolver = server.resolver();
    let names = names(&["a1.example."]);
    *server.reply.lock().unwrap() = Some(Some(([192, 0, 2, 1], 60)));
    resolver.resolve(&names).await["a1.example."].clone().unwrap();
    for reply in [None, Some(None)] {
        *server.reply.lock().unwrap() = reply;
        // On a busy machine one query may take longer, but not each of five.
        let mut took = Vec::new();
        while took.len() < 5 && took.iter().all(|it| *it >= TIMEOUT) {
            resolver.known.get_mut("a1.example.").unwrap().next_query = Instant::now();
            let begin = Instant::now();
            assert_eq!(resolver.resolve(&names).await["a1.example."], Ok([192, 0, 2, 1].into()));
            took.push(begin.elapsed());
            assert!(resolver.known["a1.example."].next_query > Instant::now(), "queried again at once");
        }
        assert!(took.iter().any(|it| *it < TIMEOUT), "{took:?}");
    }
}

#[tokio::test]
async fn name_without_an_address_costs_only_itself() {
    let server = server().await;
    let mut resolver = server.resolver();
    *server.reply.lock().unwrap() = Some(None);
    let found = resolver.resolve(&names(&["gone.example.", "not a name \u{7f}..", "localhost"])).await;
    assert!(found["gone.example."].as_ref().is_err_and(|reason| reason.contains("no such name")), "{found:?}");
    assert!(found["not a name \u{7f}.."].is_err());
    assert_eq!(found["localhost"], Ok(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(resolver.resolve(&names(&["localhost"])).await.len(), 1);
}
