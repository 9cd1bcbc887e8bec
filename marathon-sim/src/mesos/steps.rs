//! The steps that give each app its wanted tasks. Pure.

use super::super::app::App;
use super::super::cluster::Cluster;
use super::super::task::{Task, TaskState};
use super::super::version::Version;
use super::docker::image;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Start a task of this app.
    Start(String),
    /// Stop this task.
    Stop(String),
}

/// Returns the steps of all apps that are containers.
pub(super) fn of(cluster: &Cluster) -> Vec<Step> {
    let apps = cluster.apps().filter(|(_, app)| image(&app.current().json).is_some());
    apps.flat_map(|(id, app)| of_app(id, app)).collect()
}

fn of_app(id: &str, app: &App) -> Vec<Step> {
    let wanted = app.current().json.get("instances").and_then(serde_json::Value::as_u64).unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let stop = |task: &Task| Step::Stop(task.id.clone());
    let told = app.tasks().filter(|task| task.stopping && task.state != TaskState::TaskKilling).map(stop);
    let (new, old): (Vec<&Task>, Vec<&Task>) =
        app.tasks().filter(|task| !task.stopping).partition(|task| config(&task.version) == config(app.current()));
    let missing = (new.len()..wanted).map(|_| Step::Start(id.to_owned()));
    // The youngest tasks go first; ids are in the order of their start.
    let surplus = new.iter().skip(wanted).map(|task| stop(task));
    // Tasks of another version stay until all new ones have taken over.
    let replaced = new.iter().filter(|task| is_well(task)).count() >= wanted;
    let old = old.into_iter().filter(|_| replaced).map(stop);
    told.chain(missing).chain(surplus).chain(old).collect()
}

/// Returns what versions that differ in `instances` only have in common.
fn config(version: &Version) -> &serde_json::Value {
    &version.json["versionInfo"]["lastConfigChangeAt"]
}

fn is_well(task: &Task) -> bool {
    task.state == TaskState::TaskRunning && (task.health.is_empty() || task.healthy() == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::task::Place;
    use super::*;

    fn app(instances: u32, label: &str) -> serde_json::Value {
        json!({"id": "/web", "instances": instances, "labels": {"is": label},
            "container": {"type": "DOCKER", "docker": {"image": "web"}}})
    }

    fn started(cluster: &mut Cluster, count: usize) -> Vec<String> {
        (0..count).map(|_| cluster.start("/web", &Place { host: "h".into(), ..Place::default() }).unwrap()).collect()
    }

    #[test]
    fn app_gets_its_instances_and_loses_the_youngest() {
        let mut cluster = Cluster::new("m:8080");
        cluster.put(app(2, "a")).unwrap();
        assert_eq!(of(&cluster), vec![Step::Start("/web".into()); 2]);
        let ids = started(&mut cluster, 2);
        assert_eq!(of(&cluster), []);
        cluster.put(app(1, "a")).unwrap();
        assert_eq!(of(&cluster), [Step::Stop(ids[1].clone())]);
        cluster.set_state(&ids[1], TaskState::TaskKilling).unwrap();
        assert_eq!(of(&cluster), [], "it is being stopped");
    }

    #[test]
    fn killed_task_is_stopped_and_another_started() {
        let mut cluster = Cluster::new("m:8080");
        cluster.put(app(1, "a")).unwrap();
        let ids = started(&mut cluster, 1);
        cluster.kill(&ids[0]).unwrap();
        assert_eq!(of(&cluster), [Step::Stop(ids[0].clone()), Step::Start("/web".into())]);
    }

    #[test]
    fn tasks_of_an_old_version_stay_until_new_ones_run() {
        let mut cluster = Cluster::new("m:8080");
        cluster.put(app(1, "a")).unwrap();
        let old = started(&mut cluster, 1);
        cluster.put(app(1, "a")).unwrap();
        assert_eq!(of(&cluster), []);
        cluster.put(app(1, "b")).unwrap();
        assert_eq!(of(&cluster), [Step::Start("/web".into())]);
        started(&mut cluster, 1);
        assert_eq!(of(&cluster), [Step::Stop(old[0].clone())]);
    }

    #[test]
    fn app_without_a_container_needs_no_step() {
        let mut cluster = Cluster::new("m:8080");
        cluster.put(json!({"id": "/elsewhere", "instances": 3})).unwrap();
        assert_eq!(of(&cluster), []);
    }
}
