//! The summary of an event: how soon to read, which app, and whether a task has started or ended. Pure and total.
//!
//! Events are hints: they may be lost, duplicated or late. The next response corrects whatever an event has changed.

use serde::Deserialize;

use super::{
    announced_ends::InstanceChanged, schedule::Hint, sse::Event, task_started::TaskStarted, timestamp::millis,
};

/// The summary of one event, or of a change of the stream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventSummary {
    /// How soon to read.
    pub(super) hint: Hint,
    /// What may have changed.
    pub(super) concerns: Concerns,
    /// The task that has ended.
    pub(super) ended: Option<TaskEnded>,
    /// The task that has started.
    pub(super) started: Option<TaskStarted>,
    /// The task that is unreachable.
    pub(super) unreachable: Option<String>,
    /// The change of an instance.
    pub(super) instance: Option<InstanceChanged>,
    /// The instance that has ended although Marathon had replaced it before.
    pub(super) replaced_ended: Option<String>,
}

/// What an event concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concerns {
    /// Anything.
    Everything,
    /// These apps or pods.
    Apps(Vec<String>),
    /// The apps and pods that this deployment changes, which begins or goes on (true), or is over.
    Deployment(String, Vec<String>, bool),
    /// The apps and pods of the deployments that have not ended.
    Deployments,
}

impl Concerns {
    /// Returns the only app that is concerned.
    pub(super) fn app(&self) -> Option<&str> {
        match self {
            Self::Apps(apps) if apps.len() == 1 => apps.first().map(String::as_str),
            _ => None,
        }
    }

    fn one(app: Option<String>) -> Self {
        app.map_or(Self::Everything, |app| Self::Apps(vec![app]))
    }
}

/// A task that has ended, or that is about to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskEnded {
    /// The id of the task.
    pub(super) task: String,
    /// Whether the task still runs, so that its open connections go on.
    pub(super) still_running: bool,
}

impl EventSummary {
    /// Returns the summary of an event that concerns all apps.
    pub(super) fn of_all(hint: Hint) -> Self {
        Self {
            hint,
            concerns: Concerns::Everything,
            ended: None,
            started: None,
            unreachable: None,
            instance: None,
            replaced_ended: None,
        }
    }
}

/// The fields of an event's data that are used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    app_id: Option<String>,
    run_spec_id: Option<String>,
    task_id: Option<String>,
    task_status: Option<String>,
    instance_id: Option<String>,
    condition: Option<String>,
    timestamp: String,
    app_definition: Option<Definition>,
    plan: Option<Plan>,
    uri: String,
}

/// The plan of a deployment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plan {
    id: String,
    steps: Vec<PlanStep>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PlanStep {
    actions: Vec<Action>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Action {
    app: Option<String>,
    pod: Option<String>,
}

impl Plan {
    /// Returns what a deployment concerns. A plan that names nothing may change anything.
    fn concerns(self, goes_on: bool) -> Concerns {
        let actions = self.steps.into_iter().flat_map(|step| step.actions);
        let mut names: Vec<_> = actions.filter_map(|action| action.app.or(action.pod)).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() || self.id.is_empty() {
            return Concerns::Everything;
        }
        Concerns::Deployment(self.id, names, goes_on)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Definition {
    id: Option<String>,
}

/// Returns the summary of an event. An event that cannot be read means that something has changed.
pub(super) fn summarize(event: &Event) -> EventSummary {
    let data: Data = serde_json::from_str(&event.data).unwrap_or_default();
    let app = data.app_id.or(data.run_spec_id);
    let concerning = |concerns| EventSummary { concerns, ..EventSummary::of_all(Hint::Changed) };
    let changed = |app| concerning(Concerns::one(app));
    match event.name.as_str() {
        "status_update_event" => match data.task_status.as_deref().unwrap_or_default() {
            "TASK_RUNNING" => EventSummary { started: TaskStarted::parse(&event.data), ..changed(app) },
            "TASK_KILLING" => ended(app, data.task_id, true),
            "TASK_KILLED"
            | "TASK_FINISHED"
            | "TASK_FAILED"
            | "TASK_ERROR"
            | "TASK_GONE"
            | "TASK_GONE_BY_OPERATOR"
            | "TASK_DROPPED" => ended(app, data.task_id, false),
            "TASK_UNREACHABLE" => EventSummary { unreachable: data.task_id, ..changed(app) },
            // Such a task may come back, so the listing decides.
            "TASK_LOST" | "TASK_UNKNOWN" => EventSummary { hint: Hint::Urgent, ..changed(app) },
            _ => changed(app),
        },
        "unhealthy_instance_kill_event" | "unhealthy_task_kill_event" => ended(app, data.task_id, true),
        "instance_changed_event" => {
            let (is_running, at) = (data.condition.as_deref() == Some("Running"), millis(&data.timestamp));
            let instance = data.instance_id.filter(|id| !id.is_empty());
            let instance = instance.map(|instance| InstanceChanged { instance, is_running, at });
            EventSummary { instance, ..changed(app) }
        }
        // Their instances are ignored: a new task may have the instance of a task that has ended.
        "instance_health_changed_event" | "health_status_changed_event" => changed(app),
        "api_post_event" => changed(data.app_definition.and_then(|it| it.id)),
        // It was unreachable, and has come back after its end was decided.
        "unknown_instance_terminated_event" => EventSummary { replaced_ended: data.instance_id, ..changed(app) },
        "app_terminated_event" => changed(app),
        // It comes before the change can be read. An event of the group or of the app follows.
        "deployment_info" => concerning(data.plan.unwrap_or_default().concerns(true)),
        "deployment_success" | "deployment_failed" => concerning(data.plan.unwrap_or_default().concerns(false)),
        "group_change_success" => concerning(Concerns::Deployments),
        "pod_created_event" | "pod_updated_event" | "pod_deleted_event" => {
            // The path of a pod, or the one of all pods.
            match data.uri.strip_prefix("/v2/pods").filter(|id| id.len() > 1) {
                Some(id) => changed(Some(id.to_owned())),
                None => concerning(Concerns::Deployments),
            }
        }
        // The connection to Mesos, and events of later Marathons: a listing shows what they change.
        _ => changed(None),
    }
}

fn ended(app: Option<String>, task: Option<String>, still_running: bool) -> EventSummary {
    let ended = task.filter(|task| !task.is_empty()).map(|task| TaskEnded { task, still_running });
    // If the task is known, it leaves at once. Then the read is not urgent, and agents need not read all at once.
    let hint = if ended.is_some() { Hint::Changed } else { Hint::Urgent };
    EventSummary { concerns: Concerns::one(app), ended, ..EventSummary::of_all(hint) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn summary(name: &str, data: &str) -> EventSummary {
        summarize(&Event { name: name.into(), data: data.into() })
    }

    #[test]
    fn status_that_ends_a_task_names_it() {
        for (status, still_running) in
            [("KILLING", true), ("KILLED", false), ("FAILED", false), ("FINISHED", false), ("GONE_BY_OPERATOR", false)]
        {
            let summary = summary(
                "status_update_event",
                &format!(r#"{{"taskStatus":"TASK_{status}","taskId":"t","appId":"/a","host":null}}"#),
            );
            let ended = Some(TaskEnded { task: "t".into(), still_running });
            assert_eq!(
                summary,
                EventSummary {
                    concerns: Concerns::one(Some("/a".into())),
                    ended,
                    ..EventSummary::of_all(Hint::Changed)
                },
                "{status}"
            );
        }
        let kill = summary("unhealthy_instance_kill_event", r#"{"taskId":"t","appId":"/a"}"#);
        assert_eq!(kill.ended, Some(TaskEnded { task: "t".into(), still_running: true }));
    }

    #[test]
    fn status_of_a_task_that_may_come_back_ends_nothing() {
        for status in ["TASK_RUNNING", "TASK_LOST", "TASK_UNREACHABLE", "TASK_UNKNOWN", "TASK_NEW_WORD"] {
            let summary = summary("status_update_event", &format!(r#"{{"taskStatus":"{status}","taskId":"t"}}"#));
            assert_eq!(summary.ended, None, "{status}");
        }
        assert_eq!(summary("instance_changed_event", r#"{"condition":"Killed","instanceId":"i"}"#).ended, None);
        assert_eq!(summary("deployment_success", r#"{"taskStatus":"TASK_FAILED","taskId":"t"}"#).ended, None);
    }

    #[test]
    fn event_of_one_app_names_it_and_others_name_none() {
        for (name, data, app) in [
            ("instance_changed_event", r#"{"runSpecId":"/a","condition":"Running"}"#, Some("/a")),
            ("health_status_changed_event", r#"{"appId":"/a","alive":true}"#, Some("/a")),
            ("api_post_event", r#"{"appDefinition":{"id":"/a","cmd":"x"}}"#, Some("/a")),
            ("api_post_event", r#"{"appDefinition":7}"#, None),
            ("app_terminated_event", r#"{"appId":"/a"}"#, Some("/a")),
            ("pod_updated_event", r#"{"uri":"/v2/pods/g/p"}"#, Some("/g/p")),
            ("scheduler_registered_event", r#"{"master":"m"}"#, None),
            ("status_update_event", "not JSON", None),
        ] {
            let summary = summary(name, data);
            assert_eq!((summary.concerns.app(), summary.hint), (app, Hint::Changed), "{name} {data}");
        }
    }

    #[test]
    fn deployment_names_its_apps_and_pods() {
        let plan = r#"{"plan":{"id":"d","steps":[{"actions":[{"action":"StartApplication","app":"/a"}]},
            {"actions":[{"action":"ScalePod","pod":"/p"},{"action":"ScaleApplication","app":"/a"}]}]}}"#;
        let names = || vec!["/a".to_owned(), "/p".to_owned()];
        for (name, data, concerns) in [
            ("deployment_info", plan, Concerns::Deployment("d".into(), names(), true)),
            ("deployment_success", plan, Concerns::Deployment("d".into(), names(), false)),
            ("deployment_failed", plan, Concerns::Deployment("d".into(), names(), false)),
            ("deployment_success", r#"{"id":"d"}"#, Concerns::Everything),
            ("deployment_info", r#"{"plan":{"id":"d","steps":[]}}"#, Concerns::Everything),
            ("group_change_success", r#"{"groupId":"/"}"#, Concerns::Deployments),
            ("pod_created_event", r#"{"uri":"/v2/pods"}"#, Concerns::Deployments),
        ] {
            assert_eq!(summary(name, data).concerns, concerns, "{name} {data}");
        }
    }

    proptest! {
        #[test]
        fn any_data_has_a_summary(name in "[a-z_]{0,30}", data in any::<String>()) {
            summary(&name, &data);
            summary("status_update_event", &data);
        }
    }
}
