//! One version of an app: the JSON that Marathon would store, with its defaults, and the values derived from it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::error::CommandError;
use super::ports::{self, Mode, Port};
use super::timestamp::Timestamp;

/// An app as of `timestamp`.
#[derive(Debug)]
pub struct Version {
    /// Its name: what `version` says in the app and in its tasks.
    pub stamp: Timestamp,
    /// The app without runtime values (tasks, counts, deployments).
    pub json: Map<String, Value>,
    /// Its network mode.
    pub mode: Mode,
    /// Its ports, in order.
    pub ports: Vec<Port>,
    /// One entry per health check: whether Mesos performs it (or else the Marathon leader).
    pub checks: Vec<bool>,
    /// `servicePorts` as `/v2/tasks` shows them.
    pub service_ports: Vec<u16>,
}

impl Version {
    /// The number of host ports of a task of this version.
    pub fn host_ports(&self) -> usize {
        self.ports.iter().filter(|port| port.host.is_some()).count()
    }

    /// Whether Marathon replaces an unreachable task at once, so that listings do not show it any more.
    pub(super) fn replaces_unreachable(&self) -> bool {
        self.json.get("unreachableStrategy").is_some_and(|strategy| strategy["inactiveAfterSeconds"] == 0)
    }

    /// Whether it differs from another in nothing but its name and `instances`.
    pub(super) fn is_configured_as(&self, other: &Self) -> bool {
        let own = |json: &Map<String, Value>| {
            let mut json = json.clone();
            json.retain(|key, _| !matches!(key.as_str(), "version" | "versionInfo" | "instances"));
            json
        };
        own(&self.json) == own(&other.json)
    }
}

/// Brings `definition` into the form that Marathon stores. `previous` keeps its dynamic service ports; `taken` returns
/// the service ports of the whole cluster and is called only if a new one is needed.
pub(super) fn normalise(
    mut app: Map<String, Value>,
    stamp: Timestamp,
    previous: Option<&Version>,
    taken: impl Fn() -> BTreeSet<u16>,
) -> Result<Version, CommandError> {
    app.retain(|_, value| !value.is_null()); // Marathon takes null for absent
    check_id(&app)?;
    let mode = network_mode(&mut app)?;
    let mut ports = ports::take(&mut app, mode)?;
    let kept = previous.map_or(&[][..], |it| &it.service_ports);
    ports::assign(&mut ports, mode, kept, taken)?;

    let fixed_host_ports = app.get("requirePorts") == Some(&Value::Bool(true));
    let seen: Vec<Port> = ports.iter().map(|port| port.seen(mode, fixed_host_ports)).collect();
    ports::put(&mut app, mode, &ports);

    let checks = match app.get("healthChecks") {
        None => Vec::new(),
        Some(Value::Array(checks)) => checks.iter().map(is_done_by_mesos).collect(),
        Some(_) => return Err(CommandError::new("healthChecks must be an array of health checks")),
    };
    write_defaults(&mut app);
    app.insert("version".into(), json!(stamp));
    let service_ports = seen.iter().map(|port| port.service).collect();
    Ok(Version { stamp, json: app, mode, ports: seen, checks, service_ports })
}

fn check_id(app: &Map<String, Value>) -> Result<(), CommandError> {
    let id = app.get("id").and_then(Value::as_str).unwrap_or("");
    let name =
        |part: &str| !part.is_empty() && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
    let clashes = ["restart", "tasks", "versions"].iter().any(|word| id.ends_with(&format!("/{word}")));
    match id.strip_prefix('/') {
        Some(path) if path.split('/').all(name) && !clashes => Ok(()),
        Some(_) | None => Err(CommandError::new(format!(
            "app id {id:?} is not an absolute path of a-z, 0-9, - and . like \"/shop/web\" (its last part may not be restart, tasks or versions)"
        ))),
    }
}

fn network_mode(app: &mut Map<String, Value>) -> Result<Mode, CommandError> {
    if let Some(old) = ["ports", "ipAddress", "uris"].iter().find(|key| app.contains_key(**key)) {
        return Err(CommandError::new(format!(
            "{old:?} is the shape of Marathon 1.4; say networks, portDefinitions and container.portMappings"
        )));
    }
    let networks = app.entry("networks").or_insert_with(|| json!([{"mode": "host"}]));
    let modes: BTreeSet<&str> =
        networks.as_array().into_iter().flatten().map(|n| n["mode"].as_str().unwrap_or("container")).collect();
    let modes: Vec<&str> = modes.into_iter().collect();
    match modes[..] {
        [] | ["host"] => Ok(Mode::Host),
        ["container/bridge"] => Ok(Mode::Bridge),
        ["container"] => Ok(Mode::Container),
        _ => Err(CommandError::new(format!(
            r#"network modes {modes:?}: all must be the same, "host", "container/bridge" or "container""#
        ))),
    }
}

fn is_done_by_mesos(check: &Value) -> bool {
    check["protocol"].as_str().is_some_and(|protocol| protocol.starts_with("MESOS_") || protocol == "COMMAND")
}

fn write_defaults(app: &mut Map<String, Value>) {
    let defaults = [
        ("backoffFactor", json!(1.15)),
        ("backoffSeconds", json!(1)),
        ("cpus", json!(1)),
        ("disk", json!(0)),
        ("executor", json!("")),
        ("gpus", json!(0)),
        ("instances", json!(1)),
        ("killSelection", json!("YOUNGEST_FIRST")),
        ("labels", json!({})),
        ("maxLaunchDelaySeconds", json!(300)),
        ("mem", json!(128)),
        ("requirePorts", json!(false)),
        ("role", json!("*")),
        ("unreachableStrategy", json!({"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0})),
        ("upgradeStrategy", json!({"minimumHealthCapacity": 1, "maximumOverCapacity": 1})),
    ];
    for (key, value) in defaults {
        app.entry(key).or_insert(value);
    }
    app.retain(|key, value| {
        !(matches!(key.as_str(), "healthChecks" | "readinessChecks") && value.as_array().is_some_and(Vec::is_empty))
    });
    for (list, defaults) in [
        (
            "healthChecks",
            json!({"protocol": "HTTP", "gracePeriodSeconds": 300, "intervalSeconds": 60, "timeoutSeconds": 20,
                "maxConsecutiveFailures": 3, "delaySeconds": 15, "ipProtocol": "IPv4"}),
        ),
        (
            "readinessChecks",
            json!({"name": "readinessCheck", "protocol": "HTTP", "path": "/", "portName": "http-api",
                "intervalSeconds": 30, "timeoutSeconds": 10, "httpStatusCodesForReady": [200],
                "preserveLastResponse": false}),
        ),
    ] {
        for check in app.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let (Some(check), Some(defaults)) = (check.as_object_mut(), defaults.as_object()) else { continue };
            for (key, value) in defaults {
                check.entry(key.as_str()).or_insert_with(|| value.clone());
            }
        }
    }
}
