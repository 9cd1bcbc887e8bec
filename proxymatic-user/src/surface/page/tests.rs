//! The page.

use super::*;
use crate::{model::Warning, surface::fixtures};

#[test]
fn a_hostile_name_is_text() {
    let hostile = r#"/<script>alert("1")</script>&'"#;
    let seen = fixtures::seen(vec![fixtures::service(hostile, 1234, &["active"])]);
    for wanted in ["", hostile] {
        let page = html(&seen, wanted).into_string();
        assert!(page.contains("/&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;"), "{page}");
        assert_eq!(page.matches("<script").count(), 1, "only our own");
    }
}

#[test]
fn nothing_is_asked_of_anybody_else() {
    let page = html(&fixtures::seen(vec![fixtures::service("/web", 1234, &["active"])]), "").into_string();
    for word in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    let policy = policy();
    let policy = policy.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    // Nothing is allowed by its kind, as inline scripts could be: only by what it is.
    let exact = |word: &str| ["'none'", "'self'"].contains(&word) || word.starts_with("'sha256-");
    assert!(policy.split([' ', ';']).filter(|word| word.starts_with('\'')).all(exact), "{policy}");
}

#[test]
fn a_service_is_found_by_part_of_its_name_or_by_its_port_and_no_page_is_endless() {
    let many = (0..1000).map(|nth| fixtures::service(&format!("/shop/{nth}"), 10_000 + nth, &["active"]));
    let seen = fixtures::seen(many.collect());
    let rows = |wanted: &str| html(&seen, wanted).into_string().matches("class=\"service\"").count();
    assert_eq!((rows(""), rows("/shop/99"), rows("10007"), rows("/bank")), (200, 11, 1, 0));
    let crowd = fixtures::seen(vec![fixtures::service("/web", 1234, &["active"; 500])]);
    let page = html(&crowd, "").into_string();
    assert!(page.contains("450 more backends") && page.matches("<td class=\"task\"").count() == 50, "{page}");
}

#[test]
fn what_is_wrong_comes_first() {
    let mut seen = fixtures::seen(vec![fixtures::service("/web", 1234, &[])]);
    seen.status.problems = vec!["the kernel refused a write".into()];
    seen.status.warnings = vec![Warning { app: "/shop".into(), reason: "its weight is no number".into() }];
    let page = html(&seen, "").into_string();
    let at = |text| page.find(text).unwrap_or_else(|| panic!("{text} in {page}"));
    assert!(at("the kernel refused a write") < at("/shop: its weight is no number"));
    assert!(at("/shop: its weight is no number") < at("/web") && at("/web") < at("no backend"));
    assert!(page.contains("marathon answered 2 s ago"), "{page}");
}
