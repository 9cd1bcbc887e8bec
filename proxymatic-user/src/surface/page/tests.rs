//! The page of the status endpoint.

use super::*;
use crate::{model::Warning, surface::fixtures};

#[test]
fn hostile_name_is_escaped() {
    let hostile = r#"/<script>alert("1")</script>&'"#;
    let overview = fixtures::overview(vec![fixtures::service(hostile, 1234, &["active"])]);
    for wanted in ["", hostile] {
        let page = html(&overview, wanted).into_string();
        assert!(page.contains("/&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;"), "{page}");
        assert_eq!(page.matches("<script").count(), 1, "only the page's own script");
    }
}

#[test]
fn page_loads_nothing_from_elsewhere() {
    let page = html(&fixtures::overview(vec![fixtures::service("/web", 1234, &["active"])]), "").into_string();
    for word in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    let policy = policy();
    let policy = policy.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    // The policy allows content by its hash only, never by its kind, such as all inline scripts.
    let exact = |word: &str| ["'none'", "'self'"].contains(&word) || word.starts_with("'sha256-");
    assert!(policy.split([' ', ';']).filter(|word| word.starts_with('\'')).all(exact), "{policy}");
}

#[test]
fn query_finds_name_or_port_and_the_page_is_bounded() {
    let many = (0..1000).map(|nth| fixtures::service(&format!("/shop/{nth}"), 10_000 + nth, &["active"]));
    let overview = fixtures::overview(many.collect());
    let rows = |wanted: &str| html(&overview, wanted).into_string().matches("class=\"service\"").count();
    assert_eq!((rows(""), rows("/shop/99"), rows("10007"), rows("/bank")), (200, 11, 1, 0));
    let crowd = fixtures::overview(vec![fixtures::service("/web", 1234, &["active"; 500])]);
    let page = html(&crowd, "").into_string();
    assert!(page.contains("450 more backends") && page.matches("<td class=\"task\"").count() == 50, "{page}");
}

#[test]
fn problems_come_first() {
    let mut overview = fixtures::overview(vec![fixtures::service("/web", 1234, &[])]);
    overview.status.problems = vec!["the kernel refused a write".into()];
    overview.status.warnings = vec![Warning { app: "/shop".into(), reason: "its weight is no number".into() }];
    let page = html(&overview, "").into_string();
    let at = |text| page.find(text).unwrap_or_else(|| panic!("{text} in {page}"));
    assert!(at("the kernel refused a write") < at("/shop: its weight is no number"));
    assert!(at("/shop: its weight is no number") < at("/web") && at("/web") < at("no backend"));
    assert!(page.contains("marathon answered 2 s ago"), "{page}");
}
