//! Labels for settings: their values, and the labels of several apps together.

use super::*;

fn labels(pairs: &[(&str, &str)]) -> GivenSettings {
    let mut labels = GivenSettings::default();
    for (key, value) in pairs {
        labels.apply_label(key, value).unwrap();
    }
    labels
}

#[test]
fn label_applies_and_a_bad_value_is_explained() {
    let s = Duration::from_secs;
    let is = Settings::default;
    let reset = Settings { reset: true, ..is() };
    let allow = ["10.0.0.0/8", "192.0.2.7", "cgroup:/mesos"].map(|text| text.parse().unwrap());
    for (key, good, settings, bad) in [
        ("balance", "maglev", Settings { policy: Policy::Maglev, ..is() }, "leastcon"),
        ("timeout.connect", "250ms", Settings { connect: Duration::from_millis(250), ..is() }, "-1s"),
        ("timeout.client", "30s", Settings { client: Some(s(30)), ..is() }, "soon"),
        ("timeout.server", "5m", Settings { server: Some(s(300)), ..is() }, "0"),
        ("timeout.client", "1s", Settings { client: Some(s(1)), ..is() }, "999ms"),
        ("timeout.server", "1000", Settings { server: Some(s(1)), ..is() }, "1ms"),
        ("affinity", "30m", Settings { affinity: s(1800), ..is() }, "client"),
        ("affinity", "0", is(), ""),
        ("allow", "10.1.0.0/8, 192.0.2.7,cgroup:/mesos", Settings { allow: Some(allow.into()), ..is() }, "db"),
        ("on-backend-removed", "reset", reset, "drop"),
        ("on-backend-removed", "keep", is(), "true"),
        ("expose", "true", Settings { expose: true, ..is() }, "yes"),
    ] {
        assert_eq!(labels(&[(key, good)]).settings(), settings, "{key}={good}");
        let says = GivenSettings::default().apply_label(key, bad).unwrap_err();
        assert!(says.contains("must be "), "{key}={bad}: {says}");
    }
    for policy in Policy::ALL {
        assert_eq!(labels(&[("balance", &policy.to_string())]).settings().policy, policy);
    }
    assert_eq!(labels(&[]).settings(), Settings::default());
}

#[test]
fn allow_list_with_an_invalid_entry_stays_a_list() {
    for (value, left) in [("10.0.0.0/8,10.0.0.0/33", 1), ("10.0.0.0/33", 0), ("", 0)] {
        let mut labels = GivenSettings::default();
        assert!(labels.apply_label("allow", value).unwrap_err().contains("the entry allows no client"));
        assert_eq!(labels.settings().allow.unwrap().len(), left, "{value}");
    }
}

#[test]
fn differences_are_given_values_that_a_service_does_not_have() {
    let owner = labels(&[("balance", "random"), ("affinity", "1m")]).settings();
    let other = [("balance", "maglev"), ("affinity", "60s"), ("expose", "false"), ("allow", "10.0.0.0/8")];
    assert_eq!(labels(&other).differences(&owner), ["balance", "allow"]);
    assert_eq!(labels(&[]).differences(&owner), [""; 0]);
}

/// These names are in state files of agents that were stopped: a field with another name would be lost.
#[test]
fn saved_settings_keep_the_names_of_their_fields() {
    let settings = Settings { maxconn: Some(1), client: Some(CONNECT), server: Some(CONNECT), ..Settings::default() };
    let settings = Settings { allow: Some([].into()), ..settings };
    let saved = serde_json::to_string(&SavedSettings::from(&settings)).unwrap();
    expect_test::expect![[r#"{"policy":"leastconn","maxconn":1,"connect":{"secs":3,"nanos":0},"client":{"secs":3,"nanos":0},"server":{"secs":3,"nanos":0},"affinity":{"secs":0,"nanos":0},"allow":[],"reset":false,"expose":false}"#]]
        .assert_eq(&saved);
    let tiny = Some(Duration::from_millis(999));
    let tiny = SavedSettings::from(&Settings { client: tiny, server: tiny, ..Settings::default() });
    assert_eq!(tiny.restore(), Ok(Settings::default()), "an earlier version may have saved them");
    let short = serde_json::to_string(&SavedSettings::from(&Settings::default())).unwrap();
    expect_test::expect![[r#"{"policy":"leastconn","connect":{"secs":3,"nanos":0},"affinity":{"secs":0,"nanos":0},"reset":false,"expose":false}"#]]
        .assert_eq(&short);
}

#[test]
fn log_has_each_setting_in_the_words_of_its_label() {
    expect_test::expect![[r#"
        balance leastconn
        maxconn as for all
        timeout.connect 3s
        timeout.client none
        timeout.server none
        affinity 0ns
        allow everybody
        on-backend-removed keep
        expose false"#]]
    .assert_eq(&Settings::default().log_texts().join("\n"));
}
