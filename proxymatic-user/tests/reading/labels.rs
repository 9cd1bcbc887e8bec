//! The labels for a service, and which labels count if apps share the service.

use std::time::Duration;

use proxymatic_user::model::{Policy, Protocol, ServiceKey};
use serde_json::{Value, json};

use super::{app, options, snapshot, task, with};

const KEY: ServiceKey = ServiceKey::host(1000, Protocol::Tcp);

/// An app that shares port 1000 on purpose, with more labels.
fn canary(id: &str, labels: &[(&str, &str)]) -> Value {
    let prefix = "com.meltwater.proxymatic.port.0.";
    let shared = [("servicePort", "1000")];
    let labels = shared.iter().chain(labels).map(|(key, value)| (format!("{prefix}{key}"), json!(value)));
    let labels = Value::Object(labels.collect());
    with(app(id, 10_007, json!([task(id, &[2])])), json!({ "labels": labels }))
}

#[test]
fn labels_of_a_port_are_settings_of_its_service() {
    let asked = [("balance", "maglev"), ("timeout.connect", "250ms"), ("allow", "10.0.0.0/8"), ("affinity", "5m")];
    let read = snapshot(json!([canary("/web", &asked)]), json!([]), &options());
    assert_eq!(read.warnings, []);
    let settings = &read.services[&KEY].settings;
    assert_eq!((settings.policy, settings.connect), (Policy::Maglev, Duration::from_millis(250)));
    assert_eq!(settings.affinity, Duration::from_secs(300));
    assert_eq!(settings.allow.iter().flatten().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8"]);
}

#[test]
fn labels_of_the_owner_of_a_port_count() {
    let web = canary("/web", &[("balance", "random"), ("allow", "10.0.0.0/8")]);
    let beta = canary("/web-beta", &[("balance", "maglev"), ("affinity", "1m"), ("allow", "10.0.0.0/8")]);
    for apps in [json!([web, beta]), json!([beta, web])] {
        let read = snapshot(apps, json!([]), &options());
        let settings = &read.services[&KEY].settings;
        assert_eq!((settings.policy, settings.affinity), (Policy::Random, Duration::ZERO));
        let warnings: Vec<_> = read.warnings.iter().map(|it| format!("{}: {}", it.app, it.reason)).collect();
        assert_eq!(
            warnings,
            [
                "/web-beta: service port 1000/tcp: the settings come from its owner /web, so balance and affinity of other \
              apps has no effect; set it there"
            ]
        );
    }
    // A value that equals the owner's default is no difference.
    let read = snapshot(json!([canary("/a", &[]), canary("/b", &[("balance", "leastconn")])]), json!([]), &options());
    assert_eq!(read.warnings, []);
}
