//! The part of Docker's Engine API that tasks need.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Map, Value, json};

/// The label of containers that are tasks; its value is the id of the task.
const LABEL: &str = "proxymatic.marathon-sim.task";

/// A Docker.
#[derive(Debug, Clone)]
pub(super) struct Docker(Client);

/// A task to run.
pub(super) struct Order {
    pub(super) task: String,
    pub(super) app: String,
    /// Its app, in Marathon's JSON.
    pub(super) version: Map<String, Value>,
    /// Its host ports.
    pub(super) ports: Vec<u16>,
    /// Its reported host.
    pub(super) host: String,
}

impl Docker {
    pub(super) fn at(socket: &Path) -> Result<Self> {
        // Fails if it exists already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self(Client::builder().unix_socket(socket).tls_certs_only([]).build()?))
    }

    /// Returns the running tasks.
    pub(super) async fn tasks(&self) -> Result<BTreeSet<String>> {
        let filters = json!({"label": [LABEL]}).to_string();
        let answer = self.call(Method::GET, "containers/json", &[("filters", &filters)], None).await?;
        let task = |container: &Value| container["Labels"][LABEL].as_str().map(str::to_owned);
        Ok(answer.as_array().into_iter().flatten().filter_map(task).collect())
    }

    pub(super) async fn start(&self, order: &Order) -> Result<()> {
        let name = name(&order.task);
        self.call(Method::POST, "containers/create", &[("name", &name)], Some(order.container())).await?;
        let started = self.call(Method::POST, &format!("containers/{name}/start"), &[], None).await;
        if started.is_err() {
            // Whatever the response, no container is left.
            let _ = self.remove(&order.task).await;
        }
        started.map(drop)
    }

    /// Sends SIGTERM, SIGKILL after this many seconds, and removes the container.
    pub(super) async fn stop(&self, task: &str, seconds: u64) -> Result<()> {
        let path = format!("containers/{}/stop", name(task));
        self.call(Method::POST, &path, &[("t", &seconds.to_string())], None).await?;
        self.remove(task).await
    }

    pub(super) async fn remove(&self, task: &str) -> Result<()> {
        let path = format!("containers/{}", name(task));
        self.call(Method::DELETE, &path, &[("force", "true"), ("v", "true")], None).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<Value>) -> Result<Value> {
        let what = || format!("Docker: {method} /{path}");
        // Without a version: each Docker then uses its own, and none of these calls has changed.
        let request = self.0.request(method.clone(), format!("http://docker/{path}")).query(query);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let answer = request.send().await.with_context(what)?;
        let (status, said) = (answer.status(), answer.text().await.with_context(what)?);
        match status {
            // Already stopped or gone.
            StatusCode::NOT_MODIFIED => Ok(Value::Null),
            StatusCode::NOT_FOUND if method == Method::DELETE => Ok(Value::Null),
            good if good.is_success() => Ok(serde_json::from_str(&said).unwrap_or(Value::Null)),
            bad => bail!("{}: {bad}: {}", what(), said.trim()),
        }
    }
}

impl Order {
    /// The body of `containers/create`.
    fn container(&self) -> Value {
        let text = |key: &str| self.version.get(key).cloned().unwrap_or(Value::Null);
        let bridge = self.version.get("networks").is_none_or(|it| it[0]["mode"] != "host");
        let (exposed, bound) = self.bindings();
        json!({
            "Image": image(&self.version), "Cmd": text("args"), "Env": self.environment(),
            "Labels": {LABEL: self.task}, "ExposedPorts": exposed,
            "HostConfig": {"NetworkMode": if bridge { "bridge" } else { "host" }, "PortBindings": bound},
        })
    }

    fn environment(&self) -> Vec<String> {
        let own = self.version.get("env").and_then(Value::as_object).into_iter().flatten();
        let own = own.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
        let ports = self.ports.iter().enumerate().map(|(nth, port)| format!("PORT{nth}={port}"));
        let told = [("MESOS_TASK_ID", &self.task), ("MARATHON_APP_ID", &self.app), ("HOST", &self.host)];
        own.chain(told.map(|(key, value)| format!("{key}={value}"))).chain(ports).collect()
    }

    /// The container's ports, and their host ports.
    fn bindings(&self) -> (Map<String, Value>, Map<String, Value>) {
        let mappings = self.version.get("container").and_then(|it| it["portMappings"].as_array());
        let with_host = mappings.into_iter().flatten().filter(|it| it.get("hostPort").is_some());
        let (mut exposed, mut bound) = (Map::new(), Map::new());
        for (mapping, port) in with_host.zip(&self.ports) {
            // 0 means that both are equal.
            let inside = mapping["containerPort"].as_u64().filter(|it| *it > 0).unwrap_or((*port).into());
            for protocol in mapping["protocol"].as_str().unwrap_or("tcp").split(',') {
                let key = format!("{inside}/{protocol}");
                exposed.insert(key.clone(), json!({}));
                bound.insert(key, json!([{"HostPort": port.to_string()}]));
            }
        }
        (exposed, bound)
    }
}

/// Returns the Docker image of an app's JSON.
pub(super) fn image(app: &Map<String, Value>) -> Option<&str> {
    app.get("container")?["docker"]["image"].as_str()
}

/// The name as Mesos forms it, from the part of the id that is new with each task.
fn name(task: &str) -> String {
    let own = task.rsplit_once("instance-").map_or(task, |(_, own)| own);
    format!("mesos-{}", own.trim_end_matches("._app.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(version: Value) -> Order {
        let Value::Object(version) = version else { panic!("an app is an object") };
        Order {
            task: "web.instance-1._app.1".into(),
            app: "/web".into(),
            version,
            ports: vec![31_000],
            host: "h".into(),
        }
    }

    #[test]
    fn host_ports_map_to_container_ports() {
        let order = order(json!({"networks": [{"mode": "container/bridge"}], "args": ["/web"], "env": {"A": "b"},
            "container": {"docker": {"image": "web"},
                "portMappings": [{"containerPort": 80, "hostPort": 0, "protocol": "udp,tcp"}]}}));
        let container = order.container();
        assert_eq!(container["HostConfig"]["PortBindings"]["80/udp"], json!([{"HostPort": "31000"}]));
        assert_eq!(container["HostConfig"]["PortBindings"]["80/tcp"], json!([{"HostPort": "31000"}]));
        assert_eq!(container["HostConfig"]["NetworkMode"], "bridge");
        assert_eq!((&container["Image"], &container["Cmd"]), (&json!("web"), &json!(["/web"])));
        let told = ["A=b", "MESOS_TASK_ID=web.instance-1._app.1", "MARATHON_APP_ID=/web", "HOST=h", "PORT0=31000"];
        assert_eq!(container["Env"], json!(told));
    }

    #[test]
    fn port_without_mapping_is_equal_inside_and_outside() {
        let order = order(
            json!({"container": {"docker": {"image": "web"}, "portMappings": [{"containerPort": 0, "hostPort": 0}]}}),
        );
        assert_eq!(order.container()["ExposedPorts"], json!({"31000/tcp": {}}));
    }

    #[test]
    fn container_name_is_unique_to_its_task() {
        assert_eq!(name("demo_web.instance-00000001-0000-11ea._app.1"), "mesos-00000001-0000-11ea");
    }
}
