//! Who owns a service port that several apps claim, who may join it, and what the others are told.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use expect_test::{Expect, expect};
use proxymatic_user::{
    model::{Protocol, Service, ServiceKey, Snapshot},
    source::marathon::{
        ClaimRules, convert,
        lookups::{Lookups, Options},
    },
};
use serde_json::{Value, json};

use super::{app, task, text, with};

const KEY: ServiceKey = ServiceKey::host(10005, Protocol::Tcp);

/// What an agent knows besides the listing.
#[derive(Default)]
struct Known<'a> {
    /// The owner of the port so far.
    owner: Option<&'a str>,
    /// Apps from the one with the oldest version on.
    ages: &'a [&'a str],
    rules: ClaimRules,
}

impl Known<'_> {
    fn read(&self, apps: &Value) -> Snapshot {
        let listing = convert::parse(json!({ "apps": apps }).to_string().as_bytes()).expect("a listing");
        let service = |owner: &str| Service { owner: Some(owner.into()), ..Service::default() };
        let services = self.owner.map(|owner| (KEY, Arc::new(service(owner)))).into_iter().collect();
        let first_versions = (0..).zip(self.ages).map(|(age, app)| ((*app).to_owned(), Ok(age))).collect();
        let served = Snapshot { services, warnings: Vec::new() };
        let lookups = Lookups { served, first_versions, ..Lookups::default() };
        let options = Options { claims: Arc::new(self.rules.clone()), ..NonZeroU32::MIN.into() };
        convert::convert(&listing, &lookups, &options)
    }

    /// Asserts what is read, in any order of the apps.
    fn reads(&self, apps: &[Value], expected: Expect) {
        let read = self.read(&json!(apps));
        expected.assert_eq(&text(&read));
        let turned: Vec<_> = apps.iter().rev().collect();
        assert_eq!(self.read(&json!(turned)), read);
    }
}

/// An app to which Marathon assigned the port.
fn plain(id: &str, host_port: u16) -> Value {
    app(id, 10005, json!([task(id, &[host_port])]))
}

/// An app that names the port by a label, with more labels of its port.
fn labelled(id: &str, host_port: u16, labels: &[(&str, &str)]) -> Value {
    let own = [("servicePort", "10005")];
    let prefix = "com.meltwater.proxymatic.port.0.";
    let labels: serde_json::Map<_, _> =
        own.iter().chain(labels).map(|(key, value)| (format!("{prefix}{key}"), json!(value))).collect();
    with(app(id, 10000, json!([task(id, &[host_port])])), json!({ "labels": labels }))
}

fn sharing(mut app: Value, list: &str) -> Value {
    app["labels"]["com.meltwater.proxymatic.port.0.share"] = json!(list);
    app
}

/// A label names the port that Marathon assigned to another team.
#[test]
fn label_of_another_group_joins_no_assigned_port() {
    for owner in [None, Some("/team-a/web"), Some("/another/evil")] {
        Known { owner, ..Known::default() }.reads(
            &[plain("/team-a/web", 1), labelled("/another/evil", 2, &[("weight", "1000"), ("share", "/*")])],
            expect![[r#"
                10005/tcp /team-a/web
                  /team-a/web 10.0.0.9 1 Active
                /another/evil: service port 10005/tcp belongs to /team-a/web, to which Marathon assigned it; /another/evil is in another group, so its tasks get no connections there; let /team-a/web name it in a label com.meltwater.proxymatic.port.<index>.share, or start the agents with --share anyone; --owner 10005=/another/evil gives it the port
            "#]],
        );
    }
}

#[test]
fn plain_claim_with_an_earlier_name_takes_the_port_from_nobody() {
    let apps = [plain("/z/web", 1), plain("/a/evil", 2)];
    let expected = || {
        expect![[r#"
            10005/tcp /z/web
              /z/web 10.0.0.9 1 Active
            /a/evil: service port 10005/tcp belongs to /z/web, which had it first; /a/evil is in another group, so its tasks get no connections there; let /z/web name it in a label com.meltwater.proxymatic.port.<index>.share, or start the agents with --share anyone; --owner 10005=/a/evil gives it the port
        "#]]
    };
    Known { owner: Some("/z/web"), ages: &["/a/evil", "/z/web"], ..Known::default() }.reads(&apps, expected());
    Known { ages: &["/z/web", "/a/evil"], ..Known::default() }.reads(&apps, expected());
    Known { owner: Some("/gone/app"), ages: &["/z/web", "/a/evil"], ..Known::default() }.reads(&apps, expected());
    Known::default().reads(
        &apps,
        expect![[r#"
            10005/tcp /a/evil
              /a/evil 10.0.0.9 2 Active
            /z/web: service port 10005/tcp belongs to /a/evil, which comes first by id, while Marathon does not list the versions of both; /z/web is in another group, so its tasks get no connections there; let /a/evil name it in a label com.meltwater.proxymatic.port.<index>.share, or start the agents with --share anyone; --owner 10005=/z/web gives it the port
        "#]],
    );
    let by_id = Known::default().read(&json!(apps));
    assert_eq!(by_id.services[&KEY].owner, None, "the choice is made again when Marathon answers");
}

#[test]
fn flag_decides_for_good() {
    let rules = |owner: &str| ClaimRules { owners: [(10005, owner.to_owned())].into(), ..ClaimRules::default() };
    Known { owner: Some("/z/web"), rules: rules("/b/canary"), ..Known::default() }.reads(
        &[plain("/z/web", 1), labelled("/b/canary", 2, &[])],
        expect![[r#"
            10005/tcp /b/canary
              /b/canary 10.0.0.9 2 Active
            /z/web: service port 10005/tcp belongs to /b/canary, by --owner; /z/web is in another group, so its tasks get no connections there; let /b/canary name it in a label com.meltwater.proxymatic.port.<index>.share, or start the agents with --share anyone; --owner 10005=/z/web gives it the port
        "#]],
    );
    Known { rules: rules("/edge/web"), ..Known::default() }.reads(
        &[plain("/z/web", 1)],
        expect![[r#"
            /z/web: service port 10005/tcp is kept for /edge/web by --owner, and /z/web is in another group, so its tasks get no connections there; give it another port, or correct --owner
        "#]],
    );
    Known { rules: rules("/edge/web"), ..Known::default() }.reads(
        &[plain("/z/web", 1), labelled("/edge/canary", 2, &[])],
        expect![[r#"
            10005/tcp /edge/canary
              /edge/canary 10.0.0.9 2 Active
            /z/web: service port 10005/tcp belongs to /edge/canary, which is in the group of /edge/web, for which --owner keeps it; /z/web is in another group, so its tasks get no connections there; let /edge/canary name it in a label com.meltwater.proxymatic.port.<index>.share, or start the agents with --share anyone; --owner 10005=/z/web gives it the port
        "#]],
    );
}

/// The root is a group as any other.
#[test]
fn apps_of_one_group_share_without_new_labels() {
    Known { ages: &["/shop/web"], ..Known::default() }.reads(
        &[plain("/shop/web", 1), labelled("/shop/a-canary", 2, &[("weight", "100")])],
        expect![[r#"
            10005/tcp /shop/web
              /shop/a-canary 10.0.0.9 2 Active weight 100
              /shop/web 10.0.0.9 1 Active
        "#]],
    );
    Known { ages: &["/web", "/canary"], ..Known::default() }.reads(
        &[labelled("/web", 1, &[]), labelled("/canary", 2, &[])],
        expect![[r#"
            10005/tcp /web
              /canary 10.0.0.9 2 Active
              /web 10.0.0.9 1 Active
        "#]],
    );
}

#[test]
fn share_label_counts_on_the_owner_only() {
    let canary = || labelled("/ops/canary", 2, &[]);
    let both = || {
        expect![[r#"
            10005/tcp /shop/web
              /ops/canary 10.0.0.9 2 Active
              /shop/web 10.0.0.9 1 Active
        "#]]
    };
    for list in ["/ops/canary", "/x, /ops/*", "/*"] {
        Known::default().reads(&[sharing(plain("/shop/web", 1), list), canary()], both());
    }
    let anyone = ClaimRules { share_anyone: true, ..ClaimRules::default() };
    Known { rules: anyone, ..Known::default() }.reads(&[plain("/shop/web", 1), canary()], both());
    for (web, canary) in [
        (sharing(plain("/shop/web", 1), "/ops/canary2,/op/*"), canary()),
        (plain("/shop/web", 1), sharing(canary(), "/shop/web,/ops/canary,/*")),
    ] {
        let read = Known::default().read(&json!([web, canary]));
        assert_eq!(read.services[&KEY].backends.len(), 1, "{read:?}");
        assert_eq!((read.services[&KEY].owner.as_deref(), read.warnings.len()), (Some("/shop/web"), 1));
    }
}

/// Retuning, from inside of the group and from outside, by an app with tasks and by one without.
#[test]
fn settings_come_from_the_owner_alone() {
    let retuned = [("timeout.client", "30s"), ("allow", "203.0.113.1"), ("expose", "true"), ("balance", "maglev")];
    let owned = |apps: &[Value]| {
        let read = Known { ages: &["/shop/web"], ..Known::default() }.read(&json!(apps));
        (read.services[&KEY].settings.clone(), read.warnings.iter().map(|it| it.reason.clone()).collect::<Vec<_>>())
    };
    let (alone, _) = owned(&[plain("/shop/web", 1)]);
    for id in ["/shop/a", "/shop/zz", "/other/a"] {
        let member = labelled(id, 2, &retuned);
        let idle = with(member.clone(), json!({"tasks": []}));
        let (settings, warnings) = owned(&[plain("/shop/web", 1), member]);
        assert_eq!(settings, alone);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        if id.starts_with("/shop") {
            expect!["service port 10005/tcp: the settings come from its owner /shop/web, so balance and timeout.client and allow and expose of other apps has no effect; set it there"]
                .assert_eq(&warnings[0]);
        }
        let (settings, warnings) = owned(&[plain("/shop/web", 1), idle]);
        assert_eq!((settings, warnings.len()), (alone.clone(), usize::from(id.starts_with("/other"))));
    }
    // The owner's settings hold for all members, also while the owner has no tasks: an allow list stays closed.
    let strict = with(
        plain("/shop/web", 1),
        json!({"tasks": [], "labels": {"com.meltwater.proxymatic.port.0.allow": "10.0.0.0/8"}}),
    );
    let (settings, warnings) = owned(&[strict, labelled("/shop/canary", 2, &[])]);
    assert!(settings.allow.is_some() && warnings.is_empty(), "{warnings:?}");
}

#[test]
fn owner_without_tasks_keeps_what_it_owns() {
    let idle = with(plain("/shop/web", 1), json!({"tasks": []}));
    Known::default().reads(
        &[idle, labelled("/evil/app", 2, &[])],
        expect![[r#"
            10005/tcp /shop/web
            /evil/app: service port 10005/tcp belongs to /shop/web, to which Marathon assigned it; /evil/app is in another group, so its tasks get no connections there; let /shop/web name it in a label com.meltwater.proxymatic.port.<index>.share, or start the agents with --share anyone; --owner 10005=/evil/app gives it the port
        "#]],
    );
}

/// An app says that its tasks have the port on their own hosts.
#[test]
fn port_on_own_hosts_takes_out_only_that_apps_replicas() {
    let fixed = |id: &str, tasks: Value| with(app(id, 10005, tasks), json!({"requirePorts": true}));
    for (owner, web) in [
        (None, plain("/team-a/web", 1)),
        (Some("/team-a/web"), labelled("/team-a/web", 1, &[])),
        (Some("/team-a/web"), plain("/team-a/web", 1)),
    ] {
        for tasks in [json!([]), json!([task("x", &[10005])])] {
            // By its id and its first version the attacker would come first.
            let known = Known { owner, ages: &["/a/x", "/team-a/web"], ..Known::default() };
            let read = known.read(&json!([web, fixed("/a/x", tasks)]));
            let service = &read.services[&KEY];
            assert_eq!((service.name.as_str(), service.backends.len()), ("/team-a/web", 1), "{read:?}");
            assert_eq!(read.warnings.len(), 1, "{read:?}");
        }
    }
    // A label of another group does not get the ports that the tasks have on their hosts.
    Known { ages: &["/team-a/web", "/evil/app"], ..Known::default() }.reads(
        &[fixed("/team-a/web", json!([task("w", &[10005])])), labelled("/evil/app", 2, &[])],
        expect![[r#"
            /evil/app: service port 10005/tcp belongs to /team-a/web, which had it first; /evil/app is in another group, so its tasks get no connections there; let /team-a/web name it in a label com.meltwater.proxymatic.port.<index>.share, or start the agents with --share anyone; --owner 10005=/evil/app gives it the port
            /team-a/web: service port 10005/tcp is the port of its tasks on their own hosts, so it is not served; --expose-host serves it on every host
        "#]],
    );
}

#[test]
fn virtual_address_has_one_owner_too() {
    let rules = ClaimRules {
        vip_networks: vec!["192.0.2.0/24".parse().expect("a network")],
        vip_names: true,
        ..ClaimRules::default()
    };
    let claiming = |id: &str, port: u16, vip: &str, host_port: u16| {
        let definitions = json!([{"port": port, "protocol": "tcp", "labels": {"VIP_0": vip}}]);
        with(app(id, port, json!([task(id, &[host_port])])), json!({ "portDefinitions": definitions }))
    };
    let known = Known { ages: &["/z/db", "/a/evil"], rules, ..Known::default() };
    known.reads(
        &[claiming("/z/db", 10001, "192.0.2.1:80", 1), claiming("/a/evil", 10002, "192.0.2.1:80", 2)],
        expect![[r#"
            10001/tcp /z/db
              /z/db 10.0.0.9 1 Active
            10002/tcp /a/evil
              /a/evil 10.0.0.9 2 Active
            192.0.2.1:80/tcp /z/db
              /z/db 10.0.0.9 1 Active
            /a/evil: the virtual address 192.0.2.1:80/tcp belongs to /z/db, which had it first; /a/evil is in another group, so its tasks get no connections there; let /z/db name it in a label com.meltwater.proxymatic.port.<index>.share, or start the agents with --share anyone
        "#]],
    );
    // A name that comes first does not get the port of another group's name.
    known.reads(
        &[claiming("/z/db", 10001, "/web:80", 1), claiming("/a/evil", 10002, "/a:80", 2)],
        expect![[r#"
            80/tcp /web:80
              /z/db 10.0.0.9 1 Active
            10001/tcp /z/db
              /z/db 10.0.0.9 1 Active
            10002/tcp /a/evil
              /a/evil 10.0.0.9 2 Active
            /a/evil: the virtual address /a:80 is not served: names are served at their port on every host, and 80/tcp is /web:80; give it another port, or a service port with the label com.meltwater.proxymatic.port.<index>.servicePort
        "#]],
    );
}

/// While an app moves to another port, tasks of its old definition keep the service.
#[test]
fn tasks_of_an_old_definition_keep_the_port_of_their_app() {
    let old = json!({"id": "w.1", "host": "10.0.0.9", "ports": [1], "state": "TASK_RUNNING", "version": "2020-01-01T00:00:00.000Z"});
    let moving = with(
        app("/z/web", 10006, json!([old])),
        json!({"version": "2020-01-02T00:00:00.000Z", "deployments": [{"id": "d"}]}),
    );
    let before = with(app("/z/web", 10005, json!([])), json!({"version": "2020-01-01T00:00:00.000Z"}));
    let listing = json!({ "apps": [moving, plain("/a/evil", 2)] });
    let listing = convert::parse(listing.to_string().as_bytes()).expect("a listing");
    let definition = Arc::new(serde_json::from_value(before).expect("an app"));
    let key = ("/z/web".to_owned(), "2020-01-01T00:00:00.000Z".to_owned());
    let owner = Service { owner: Some("/z/web".into()), ..Service::default() };
    let served = Snapshot { services: [(KEY, owner.into())].into(), warnings: Vec::new() };
    let definitions = BTreeMap::from([(key, Ok(definition))]);
    let lookups = Lookups { definitions, served, ..Lookups::default() };
    let read = convert::convert(&listing, &lookups, &NonZeroU32::MIN.into());
    assert_eq!(read.services[&KEY].name, "/z/web");
    assert_eq!(read.services[&KEY].backends.len(), 1, "{read:?}");
}
