//! The content of a file, and the errors for invalid files.

use super::*;

fn read(content: &[u8], format: Format) -> Result<Snapshot, String> {
    parse(content, format).map(|listing| listing.convert(&BTreeMap::new()))
}

const TOML: &str = r#"
[[services]]
name = "legacy-db"
port = 5432
backends = [
    { address = "10.0.0.5", port = 5432, weight = 900 },
    { address = "10.0.0.6", port = 5433, weight = 0, maxconn = 20 },
]

[[services]]
name = "resolver"
address = "198.51.100.7:53"
protocol = "udp"
policy = "leastconn"
backends = []
"#;

const JSON: &str = r#"{"services": [
    {"name": "legacy-db", "port": 5432, "backends": [
        {"address": "10.0.0.5", "port": 5432, "weight": 900},
        {"address": "10.0.0.6", "port": 5433, "weight": 0, "maxconn": 20}]},
    {"name": "resolver", "address": "198.51.100.7:53", "protocol": "udp", "policy": "leastconn", "backends": []}]}"#;

#[test]
fn toml_and_json_have_the_same_result() {
    let snapshot = read(TOML.as_bytes(), Format::Toml).unwrap();
    assert_eq!(read(JSON.as_bytes(), Format::Json).unwrap(), snapshot);
    let keys: Vec<_> = snapshot.services.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["5432/tcp", "198.51.100.7:53/udp"]);
    let database = &snapshot.services[&ServiceKey::host(5432, Protocol::Tcp)];
    let backends: Vec<_> =
        database.backends.iter().map(|it| (it.task.as_str(), it.weight.get(), it.maxconn, it.state)).collect();
    assert_eq!(backends, [("10.0.0.5:5432", 900, 0, State::Active), ("10.0.0.6:5433", 0, 20, State::Draining)]);
}

#[test]
fn service_has_all_settings_of_labels() {
    let toml = r#"
        [[services]]
        name = "db"
        port = 5432
        policy = "maglev"
        max-connections = 20
        timeout.connect = "250ms"
        timeout.client = "30s"
        timeout.server = "1m"
        affinity = "5m"
        allow = ["10.0.0.0/8", "cgroup:/mesos"]
        on-backend-removed = "reset"
        expose = true
        backends = []"#;
    let json = r#"{"services": [{"name": "db", "port": 5432, "balance": "maglev", "max-connections": 20,
        "timeout": {"connect": "250ms", "client": "30s", "server": "60000"}, "affinity": "300s",
        "allow": ["10.1.0.0/8", "cgroup:/mesos"], "on-backend-removed": "reset", "expose": true, "backends": []}]}"#;
    let seconds = std::time::Duration::from_secs;
    let settings = Settings {
        policy: crate::model::Policy::Maglev,
        maxconn: Some(20),
        connect: std::time::Duration::from_millis(250),
        client: Some(seconds(30)),
        server: Some(seconds(60)),
        affinity: seconds(300),
        allow: Some(["10.0.0.0/8", "cgroup:/mesos"].map(|text| text.parse().unwrap()).into()),
        reset: true,
        expose: true,
    };
    for (text, format) in [(toml, Format::Toml), (json, Format::Json)] {
        let snapshot = read(text.as_bytes(), format).unwrap();
        assert_eq!(snapshot.services[&ServiceKey::host(5432, Protocol::Tcp)].settings, settings);
    }
    for (from, to, expected) in [
        ("10.0.0.0/8", "10.0.0.0/33", "line 11: \"10.0.0.0/33\" must be an address, a network"),
        ("\"250ms\"", "\"0\"", "line 7: a timeout must be above 0"),
        ("\"5m\"", "\"soon\"", "line 10: \"soon\" must be a duration"),
        ("\"reset\"", "\"drop\"", "line 12: unknown variant `drop`"),
    ] {
        let error = error_of(&toml.replacen(from, to, 1), Format::Toml);
        assert!(error.starts_with(expected), "{error}");
    }
}

fn error_of(content: &str, format: Format) -> String {
    read(content.as_bytes(), format).unwrap_err()
}

#[test]
fn error_names_its_line() {
    for (from, to, expected) in [
        ("weight = 900", "weight = 1001", "line 6: weight 1001: must be 0 to 1000"),
        ("10.0.0.6", "10.0.0.256", "line 7: \"10.0.0.256\" is neither an IP address nor the name of a host"),
        ("10.0.0.6", "db example", "line 7: \"db example\" is neither"),
        ("10.0.0.6", "", "line 7: \"\" is neither"),
        ("10.0.0.6", "db..example", "line 7: \"db..example\" is neither"),
        ("port = 5432\n", "prot = 5432\n", "line 4: unknown field `prot`"),
        ("port = 5432\n", "port = 70000\n", "line 4: invalid value"),
        ("port = 5432\n", "port = \n", "line 4: "),
        ("udp", "sctp", "line 13: unknown variant `sctp`"),
        ("leastconn", "fastest", "line 14: policy \"fastest\": must be one of leastconn, random"),
        ("198.51.100.7:53", "198.51.100.7", "line 12: invalid socket address syntax"),
    ] {
        let error = error_of(&TOML.replacen(from, to, 1), Format::Toml);
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    for (from, to, expected) in [
        ("900", "1001", "line 3: weight 1001: must be 0 to 1000"),
        ("udp", "sctp", "line 5: unknown variant `sctp`"),
        ("]}]}", "]}", "line 5: EOF"),
    ] {
        let error = error_of(&JSON.replacen(from, to, 1), Format::Json);
        assert!(error.starts_with(expected) && !error.contains("column"), "{error}");
    }
}

#[test]
fn service_has_one_port_or_address() {
    for (port, part) in [
        ("", "needs either a port"),
        ("port = 1\naddress = \"198.51.100.7:1\"", "needs either a port"),
        ("address = \"198.51.100.7:0\"", "port 0"),
    ] {
        let error = error_of(&format!("[[services]]\nname = \"x\"\n{port}\nbackends = []\n"), Format::Toml);
        assert!(error.starts_with("line 1: service \"x\"") || error.contains(part), "{error}");
        assert!(error.contains(part), "{error}");
    }
    let twice = TOML.replacen("address = \"198.51.100.7:53\"", "port = 5432", 1).replacen("udp", "tcp", 1);
    assert!(error_of(&twice, Format::Toml).contains("5432/tcp twice, as \"legacy-db\" and as \"resolver\""));
    let twice = TOML.replacen("10.0.0.6", "10.0.0.5", 1).replacen("5433", "5432", 1);
    assert!(error_of(&twice, Format::Toml).contains("has backend 10.0.0.5:5432 twice"));
}

#[test]
fn empty_file_is_an_error_and_an_empty_list_is_not() {
    for (content, format) in [("", Format::Toml), ("# later\n", Format::Toml), ("{}", Format::Json), ("", Format::Json)]
    {
        assert!(read(content.as_bytes(), format).is_err(), "{content:?}");
    }
    for (content, format) in [("services = []", Format::Toml), (r#"{"services": []}"#, Format::Json)] {
        assert_eq!(read(content.as_bytes(), format), Ok(Snapshot::default()));
    }
}

#[test]
fn error_of_bytes_that_are_not_text_names_the_line() {
    assert_eq!(read(b"# a\n\xff", Format::Toml), Err("line 2: is not text in UTF-8".into()));
}

#[test]
fn host_name_without_an_address_costs_only_its_backends() {
    let content = TOML.replacen("10.0.0.6", "DB.example", 1).replacen(
        "backends = []",
        "backends = [{ address = \"gone.example\", port = 53 }]",
        1,
    );
    let listing = parse(content.as_bytes(), Format::Toml).unwrap();
    assert_eq!(listing.host_names().collect::<Vec<_>>(), ["db.example", "gone.example"]);
    let hosts = [
        ("db.example".to_owned(), Ok([10, 0, 0, 6].into())),
        ("gone.example".to_owned(), Err("no such name".to_owned())),
    ];
    let snapshot = listing.convert(&hosts.into());
    let backends = |port| {
        let key = snapshot.services.keys().find(|key| key.port == port).unwrap();
        snapshot.services[key]
            .backends
            .iter()
            .map(|it| format!("{} {}:{}", it.task, it.address, it.port))
            .collect::<Vec<_>>()
    };
    assert_eq!(backends(5432), ["10.0.0.5:5432 10.0.0.5:5432", "db.example:5433 10.0.0.6:5433"]);
    assert_eq!(backends(53), [""; 0]);
    assert_eq!(snapshot.warnings.len(), 1, "{:?}", snapshot.warnings);
    let Warning { app, reason } = &snapshot.warnings[0];
    assert_eq!(
        (app.as_str(), reason.as_str()),
        ("resolver", "backend gone.example:53: \"gone.example\" has no address: no such name")
    );
    let twice =
        TOML.replacen("10.0.0.6", "a.example", 1).replacen("10.0.0.5", "A.example", 1).replacen("5433", "5432", 1);
    assert!(error_of(&twice, Format::Toml).contains("has backend a.example:5432 twice"));
}

#[test]
fn error_lists_the_known_keys_and_what_was_expected() {
    const KEYS: &str = "expected one of `name`, `port`, `address`, `protocol`, `balance`, `policy`, `max-connections`, \
                        `timeout`, `affinity`, `allow`, `on-backend-removed`, `expose`, `backends`";
    let service = |settings: &str| format!("[[services]]\nname = \"x\"\nport = 1\n{settings}\nbackends = []\n");
    for (settings, expected) in [
        ("tiemout.connect = \"1s\"", &*format!("line 4: unknown field `tiemout`, {KEYS}")),
        ("maxconn = 1", &format!("line 4: unknown field `maxconn`, {KEYS}")),
        ("timeout.idle = \"1s\"", "line 4: unknown field `idle`, expected one of `connect`, `client`, `server`"),
        ("timeout = \"1s\"", "line 4: invalid type: string \"1s\", expected "),
        ("timeout.connect = 1", "line 4: invalid type: integer `1`, expected a string"),
        ("policy = 1", "line 4: invalid type: integer `1`, expected a string"),
        ("max-connections = \"1\"", "line 4: invalid type: string \"1\", expected u32"),
        ("max-connections = -1", "line 4: invalid value: integer `-1`, expected u32"),
        ("affinity = 5", "line 4: invalid type: integer `5`, expected a string"),
        ("allow = \"10.0.0.0/8\"", "line 4: invalid type: string \"10.0.0.0/8\", expected a sequence"),
        ("allow = [1]", "line 4: invalid type: integer `1`, expected a string"),
        ("expose = \"yes\"", "line 4: invalid type: string \"yes\", expected a boolean"),
        ("on-backend-removed = true", "line 4: wanted string or table"),
        ("policy = \"random\"\nbalance = \"maglev\"", "line 1: duplicate field `policy`"),
        ("name = \"y\"", "line 4: duplicate key"),
    ] {
        let error = error_of(&service(settings), Format::Toml);
        assert!(error.starts_with(expected), "{settings}: {error}");
    }
    assert!(read(service("affinity = \"0\"").as_bytes(), Format::Toml).is_ok());
    for (service, expected) in [
        ("5", "line 1: invalid type: integer `5`, expected struct ServiceToml"),
        (r#"{"name": "x", "port": 1}"#, "line 1: missing field `backends`"),
        (r#"{"port": 1, "backends": []}"#, "line 1: missing field `name`"),
        (r#"{"name": "x", "port": 1, "backends": [], "name": "y"}"#, "line 1: duplicate field `name`"),
        (r#"{"name": "x", "port": 1, "expose": true, "expose": true}"#, "line 1: duplicate field `expose`"),
        (r#"{"name": "x", "timeout": {"connect": "1s", "connect": "1s"}}"#, "line 1: duplicate field `connect`"),
        (r#"{"name": "x", "timeout": {}, "timeout": {}}"#, "line 1: duplicate field `timeout`"),
        (r#"{"name": "x", "affinity": null}"#, "line 1: invalid type: null, expected a string"),
        (r#"{"name": "x", "timeout": null}"#, "line 1: invalid type: null, expected "),
    ] {
        let error = error_of(&format!("{{\"services\": [{service}]}}"), Format::Json);
        assert!(error.starts_with(expected), "{service}: {error}");
    }
    let nothing = r#"{"services": [{"name": "x", "port": null, "address": "10.0.0.1:5", "backends": [],
        "timeout": {"connect": null}, "allow": null, "max-connections": null}]}"#;
    let snapshot = read(nothing.as_bytes(), Format::Json).unwrap();
    let service = snapshot.services.values().next().unwrap();
    assert_eq!(service.settings, Settings::default());
}
