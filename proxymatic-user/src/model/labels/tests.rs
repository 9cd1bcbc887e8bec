//! Labels as operators write them, and the warnings about invalid ones.

use super::*;
use crate::model::Weight;

fn read(group_size: u32, labels: &[(&str, &str)]) -> Labels {
    let labels: Vec<_> = labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), *value)).collect();
    let labels = labels.iter().map(|(key, value)| (key.as_str(), *value));
    Labels::read(labels, 2, NonZeroU32::new(group_size).unwrap())
}

#[test]
fn every_known_label_is_applied() {
    let labels = read(
        1,
        &[
            ("0.servicePort", "1234"),
            ("0.weight", " 250 "),
            ("0.share", "/ops/probe, /shop/*"),
            ("1.weight", "0"),
            ("1.maxconn", "100"),
            ("1.mode", "tcp"),
            ("1.balance", "leastconn"),
            ("1.expose", "false"),
            ("1.timeout.client", "30s"),
            ("1.timeout.server", "30s"),
            ("1.timeout.connect", "1s"),
            ("1.allow", "10.0.0.0/8"),
            ("1.affinity", "5m"),
            ("1.on-backend-removed", "reset"),
        ],
    );
    assert_eq!(labels.warnings, [""; 0]);
    let weight = Weight::new(250).unwrap();
    let (share, _) = ShareList::parse("/ops/probe, /shop/*");
    assert_eq!(labels.port(0), PortLabels { service_port: Some(1234), weight, share, ..PortLabels::default() });
    let one = labels.port(1);
    assert_eq!((one.service_port, one.weight.get(), one.maxconn), (None, 0, 100));
    let settings = one.service.settings();
    assert!(settings.reset && settings.allow.is_some() && settings.client.is_some());
    assert_eq!(labels.port(7), PortLabels::default());
}

#[test]
fn maxconn_is_divided_by_the_group_and_rounded_up() {
    for (group_size, value, share) in
        [(1, "10", 10), (3, "10", 4), (16, "1", 1), (16, "0", 0), (7, "4294967295", 613_566_757)]
    {
        assert_eq!(read(group_size, &[("0.maxconn", value)]).port(0).maxconn, share, "{value} / {group_size}");
    }
}

#[test]
fn invalid_label_gives_a_warning_and_keeps_the_default() {
    for (key, value, says) in [
        ("0.weight", "1001", "0.weight=1001: must be a number from 0 to 1000; the default of 500 is used"),
        ("0.weight", "-1", "must be a number from 0 to 1000"),
        ("0.servicePort", "0", "must be a number from 1 to 65535"),
        ("0.servicePort", "65536", "must be a number from 1 to 65535"),
        ("0.maxconn", "many", "must be a number from 0 (no limit)"),
        ("0.mode", "http", "forwarded as plain TCP"),
        ("0.mode", "smtp", "must be tcp or http"),
        ("0.balance", "fastest", "0.balance=fastest: must be one of leastconn, random, roundrobin, source, latency"),
        ("0.timeout.client", "0", "must be a duration of at least 1s, such as 30s or 5m; it is left out"),
        ("0.timeout.server", "999ms", "must be a duration of at least 1s"),
        ("0.timeout.connect", "0", "must be a duration above 0"),
        ("0.share", "web", "\"web\" must be the id of an app such as /shop/web, or /shop/* for all apps below a group"),
        ("0.expose", "yes", "must be true or false; it is left out"),
        ("0.slowstart", "30s", "is not supported by this version"),
        ("0.slowstart", "soon", "must be a duration above 0"),
        ("0.serviceport", "1", "the nearest known one is com.meltwater.proxymatic.port.0.servicePort"),
        ("1.timeout.clinet", "1", "port.1.timeout.client"),
        ("1.wieght", "1", "port.1.weight"),
        ("0", "1", "is unknown"),
        ("", "1", "is not the index of a port"),
        ("x.weight", "1", "\"x\" is not the index of a port"),
        ("2.weight", "1", "only the ports of index 0 to 1"),
        ("99999999999999999999.weight", "1", "is not the index of a port"),
    ] {
        let labels = read(1, &[(key, value)]);
        assert_eq!(labels.warnings.len(), 1, "{key}={value}");
        assert!(labels.warnings[0].contains(says), "{key}={value}: {}", labels.warnings[0]);
        assert_eq!((labels.port(0), labels.port(1)), Default::default(), "{key}={value}");
    }
}

#[test]
fn label_with_another_prefix_is_ignored() {
    let labels = [("HAPROXY_0_MODE", "http"), ("com.meltwater.proxymatic", "1"), ("", "")];
    assert_eq!(Labels::read(labels, 0, NonZeroU32::MIN), Labels::default());
}
