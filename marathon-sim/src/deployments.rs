//! Deployments that are withdrawn or refused, and those of whole groups.

use serde_json::Value;

use super::cluster::Cluster;
use super::error::CommandError;
use super::event::Event;
use super::event_sequences::Deployment;
use super::timestamp::Timestamp;

impl Cluster {
    /// Withdraws the deployment that brought an app to its current version, as `DELETE /v2/deployments/ID` does. The
    /// app has its version before that one again, with the `versionInfo` of that time. Its tasks stay as they are, and
    /// the withdrawn version can still be read. Returns the restored version.
    pub fn withdraw(&mut self, id: &str) -> Result<Timestamp, CommandError> {
        let app = self.apps.get_mut(id).ok_or_else(|| CommandError::no_app(id))?;
        let withdrawn = Deployment::new(id, "RestartApplication", app.current().stamp);
        let restored = app.withdraw().ok_or_else(|| {
            CommandError::new(format!("{id} has only one version, so there is no deployment to withdraw"))
        })?;
        let stamp = self.stamp_version();
        let deployment = Deployment::new(id, "RestartApplication", stamp);
        self.events.push(withdrawn.failed(self.now));
        self.events.push(deployment.info(self.now));
        self.events.push(Event::group_change_success(self.now, id, stamp));
        Ok(restored)
    }

    /// Refuses a change of an app because another deployment has locked the app: 409 in Marathon. Nothing changes.
    pub fn refuse(&mut self, id: &str) -> Result<(), CommandError> {
        self.app(id).ok_or_else(|| CommandError::no_app(id))?;
        let stamp = self.stamp_version();
        self.events.push(Deployment::new(id, "RestartApplication", stamp).failed(self.now));
        self.events.push(Event::group_change_failed(self.now, id, stamp, "App is locked by one or more deployments"));
        Ok(())
    }

    /// Makes apps from Marathon's JSON by one deployment, without tasks. Returns its id, for [`Self::finish`].
    pub fn create_group(&mut self, definitions: Vec<Value>) -> Result<String, CommandError> {
        let mut versions = Vec::new();
        for definition in definitions {
            let Value::Object(definition) = definition else {
                return Err(CommandError::new("each app of a group must be a JSON object with at least an \"id\""));
            };
            versions.push(self.new_version(definition, true)?);
        }
        let stamp = self.stamp_version();
        let ids: Vec<String> =
            versions.iter().map(|version| version.json["id"].as_str().unwrap_or_default().to_owned()).collect();
        let first = ids.first().cloned().ok_or_else(|| CommandError::new("a group without apps changes nothing"))?;
        for (id, version) in ids.iter().zip(&versions) {
            self.set_current(id, version);
        }
        let deployment = Deployment::of_group(ids, "StartApplication", stamp);
        self.events.push(deployment.info(self.now));
        self.events.push(Event::group_change_success(self.now, &first, stamp));
        let id = deployment.id().to_owned();
        self.deployments.insert(id.clone(), deployment);
        Ok(id)
    }

    /// Ends the deployment of a group.
    pub fn finish(&mut self, deployment: &str) -> Result<(), CommandError> {
        let done = self.deployments.remove(deployment);
        let done =
            done.ok_or_else(|| CommandError::new(format!("there is no deployment {deployment:?} in progress")))?;
        self.events.extend(done.success(self.now));
        Ok(())
    }
}
