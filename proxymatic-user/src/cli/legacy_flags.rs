//! The flags of `meltwater/proxymatic` for HAProxy, Pen and nginx. They are accepted, so that existing command lines
//! and environments work, and a warning says that they have no effect.

/// All of these flags, hidden from help. A switch may have a value, because its variable has one.
#[derive(Debug, clap::Args)]
pub(super) struct LegacyArgs {
    #[arg(long, short = 'c', hide = true, value_name = "URL", env = "MARATHON_CALLBACK_URL")]
    marathon_callback: Option<String>,
    #[arg(long, hide = true, value_name = "N", env = "PEN_SERVERS")]
    pen_servers: Option<String>,
    #[arg(long, hide = true, value_name = "N", env = "PEN_CLIENTS")]
    pen_clients: Option<String>,
    #[arg(long, hide = true, value_name = "USER", env = "PEN_USER")]
    pen_user: Option<String>,
    #[arg(long, hide = true, value_name = "PATH", env = "PEN_TEMPLATE")]
    pen_template: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", env = "HAPROXY")]
    haproxy: Option<String>,
    #[arg(long, hide = true, value_name = "COMMAND", env = "HAPROXY_START")]
    haproxy_start: Option<String>,
    #[arg(long, hide = true, value_name = "COMMAND", env = "HAPROXY_RELOAD")]
    haproxy_reload: Option<String>,
    #[arg(long, hide = true, value_name = "PATH", env = "HAPROXY_CONFIG")]
    haproxy_config: Option<String>,
    #[arg(long, hide = true, value_name = "PATH", env = "HAPROXY_TEMPLATE")]
    haproxy_template: Option<String>,
    #[arg(long, hide = true, value_name = "DOMAIN", env = "VHOST_DOMAIN")]
    vhost_domain: Option<String>,
    #[arg(long, hide = true, value_name = "PORT", env = "VHOST_PORT")]
    vhost_port: Option<String>,
    #[arg(
        long,
        hide = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        env = "PROXY_PROTOCOL"
    )]
    proxy_protocol: Option<String>,
}

const CALLBACK: &str = "events come over a connection that the agent opens";
const NO_PEN: &str = "there is no Pen; use --max-backends and --max-connections for limits";
const NO_HAPROXY: &str = "there is no HAProxy; the kernel forwards connections to tasks";
const NO_VHOSTS: &str = "there are no virtual hosts: run an HTTP proxy as an app that connects to service ports";

impl LegacyArgs {
    /// Returns a warning for each flag with a value other than empty or false.
    pub(super) fn warnings(&self) -> Vec<String> {
        let all = [
            ("--marathon-callback (or MARATHON_CALLBACK_URL)", &self.marathon_callback, CALLBACK),
            ("--pen-servers (or PEN_SERVERS)", &self.pen_servers, NO_PEN),
            ("--pen-clients (or PEN_CLIENTS)", &self.pen_clients, NO_PEN),
            ("--pen-user (or PEN_USER)", &self.pen_user, NO_PEN),
            ("--pen-template (or PEN_TEMPLATE)", &self.pen_template, NO_PEN),
            ("--haproxy (or HAPROXY)", &self.haproxy, NO_HAPROXY),
            ("--haproxy-start (or HAPROXY_START)", &self.haproxy_start, NO_HAPROXY),
            ("--haproxy-reload (or HAPROXY_RELOAD)", &self.haproxy_reload, NO_HAPROXY),
            ("--haproxy-config (or HAPROXY_CONFIG)", &self.haproxy_config, NO_HAPROXY),
            ("--haproxy-template (or HAPROXY_TEMPLATE)", &self.haproxy_template, NO_HAPROXY),
            ("--vhost-domain (or VHOST_DOMAIN)", &self.vhost_domain, NO_VHOSTS),
            ("--vhost-port (or VHOST_PORT)", &self.vhost_port, NO_VHOSTS),
            ("--proxy-protocol (or PROXY_PROTOCOL)", &self.proxy_protocol, NO_VHOSTS),
        ];
        let asks = |value: &String| !value.is_empty() && !value.eq_ignore_ascii_case("false");
        let given = all.into_iter().filter(|(_, value, _)| value.as_ref().is_some_and(asks));
        given.map(|(flag, _, why)| format!("{flag} has no effect: {why}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        replaced: LegacyArgs,
    }

    fn warnings(line: &str) -> Vec<String> {
        Line::parse_from(std::iter::once("run").chain(line.split_whitespace())).replaced.warnings()
    }

    #[test]
    fn legacy_flag_is_accepted_with_a_warning() {
        let line =
            "--haproxy --pen-servers 64 --pen-clients 8192 --vhost-domain example.com --proxy-protocol -c http://h/";
        let given = warnings(line);
        assert_eq!(given.len(), 6, "{given:?}");
        assert!(given.contains(&format!("--haproxy (or HAPROXY) has no effect: {NO_HAPROXY}")), "{given:?}");
    }

    #[test]
    fn legacy_flag_that_is_off_gives_no_warning() {
        assert_eq!(warnings("--haproxy=false --proxy-protocol=False --vhost-domain="), [""; 0]);
    }
}
