//! The secrets of service accounts, and the signature of login requests.

use super::*;

/// A key made for this test.
const KEY: &str = include_str!("../test-key.pem");
/// The signature of the same claims by `openssl dgst -sha256 -sign`.
const TOKEN: &str = include_str!("../test-token.txt");

fn account(change: impl FnOnce(&mut serde_json::Value)) -> Result<Account, String> {
    let mut secret = json!({"uid": "agent", "private_key": KEY, "scheme": "RS256",
        "login_endpoint": "https://leader.mesos/acs/api/v1/auth/login"});
    change(&mut secret);
    Account::parse(secret.to_string().as_bytes())
}

#[test]
fn login_is_signed_like_openssl() {
    let account = account(|_| ()).unwrap();
    let login = account.login_request(1_600_000_000).unwrap();
    assert_eq!(login, json!({"uid": "agent", "token": TOKEN.trim(), "exp": 1_600_000_300}));
    assert!(account.is_tls());
}

#[test]
fn invalid_account_is_refused_without_showing_its_key() {
    let ec = include_str!("../test-ec-key.pem");
    type Change = fn(&mut serde_json::Value, &str);
    let cases: [(Change, &str); 6] = [
        (|it, _| it["scheme"] = "HS256".into(), "only RS256"),
        (|it, _| it["login_endpoint"] = "leader.mesos".into(), "login_endpoint that is not a URL"),
        (|it, _| it["login_endpoint"] = "ftp://leader.mesos".into(), "neither https:// nor http://"),
        (|it, _| it["private_key"] = "hush".into(), "private_key that is not PEM"),
        (|it, ec| it["private_key"] = ec.into(), "not RSA"),
        (|it, _| it["uid"] = serde_json::Value::Null, "is not the JSON of a service account (line 1"),
    ];
    for (change, expected) in cases {
        let error = account(|it| change(it, ec)).unwrap_err();
        assert!(error.contains(expected) && !error.contains("hush"), "{error}");
    }
    assert!(Account::parse(b"{\"uid\": \"u\"}").unwrap_err().contains("missing field"));
    assert!(Account::parse(b"hush").unwrap_err().ends_with("(line 1, column 1)"));
    let shown = format!("{:?}", account(|_| ()).unwrap());
    assert!(shown.contains("agent") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn expiry_of_a_token_is_read_if_it_has_one() {
    assert_eq!(expiry(TOKEN), Some(1_600_000_300));
    for other in ["", "a.b.c", "..", "opaque", "a.e30.c"] {
        assert_eq!(expiry(other), None, "{other}");
    }
}
