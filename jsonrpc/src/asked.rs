//! What may be asked: each method's parameters, and the message that a binary client would send.
//!
//! A key that a method doesn't know is an error: what was meant by it can't be guessed. `initialize` alone takes any, since editors
//! say a lot about themselves there.

use core::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use stockade_protocol::bounds::{MAX_ARGUMENTS, MAX_ENVIRONMENT, MAX_STDIN_CHUNK};
use stockade_protocol::client::{
    ClientMessage, ExecRequest, OutputMode, Overrides, StdinMode, ToolCall, Workspace,
};
use stockade_protocol::statistics::{StatisticsBy, StatisticsQuestion};
use stockade_protocol::{Bytes, ExecId};

use crate::bounds::SHOWN_METHOD;
use crate::refusal::{METHOD_NOT_FOUND, Refusal};
use crate::text::Text;

/// All requests there are.
pub const METHODS: [&str; 14] = [
    "initialize",
    "exec",
    "call",
    "cancel",
    "signal",
    "stdin",
    "resize",
    "attach",
    "acknowledge",
    "list",
    "status",
    "breakers",
    "statistics",
    "policy/explain",
];

/// One request.
#[derive(Debug)]
pub(crate) enum Asked {
    Initialize,
    /// Notifications that nothing follows from.
    Nothing,
    CancelRequest(Box<RawValue>),
    Exec {
        request: Box<ExecRequest>,
        wait: bool,
    },
    Messages(Vec<ClientMessage>),
    Statistics(StatisticsQuestion),
    Explain(ExplainParams),
}

/// Reads a request.
pub(crate) fn read(method: &str, params: Option<&RawValue>) -> Result<Asked, Refusal> {
    let one = |message| Ok(Asked::Messages(vec![message]));
    match method {
        "initialize" => Ok(Asked::Initialize),
        "initialized" => Ok(Asked::Nothing),
        "$/cancelRequest" => Ok(Asked::CancelRequest(of::<CancelRequest>(params)?.id)),
        "exec" => Ok(of::<ExecParams>(params)?.asked()),
        "call" => Ok(of::<CallParams>(params)?.asked()),
        "cancel" => one(ClientMessage::Cancel { exec_id: of::<RunParams>(params)?.exec_id }),
        "signal" => {
            let SignalParams { exec_id, signal } = of(params)?;
            one(ClientMessage::Signal { exec_id, signal })
        }
        "stdin" => of::<StdinParams>(params)?.asked(),
        "resize" => {
            let ResizeParams { exec_id, rows, columns } = of(params)?;
            one(ClientMessage::Resize { exec_id, rows, columns })
        }
        "attach" => {
            let AttachParams { exec_id, after_seq } = of(params)?;
            one(ClientMessage::Attach { exec_id, after_seq })
        }
        "acknowledge" => {
            let AcknowledgeParams { exec_id, seq } = of(params)?;
            one(ClientMessage::Acknowledge { exec_id, seq })
        }
        "list" => of::<NoParams>(params).and_then(|_| one(ClientMessage::List)),
        "status" => of::<NoParams>(params).and_then(|_| one(ClientMessage::Status)),
        "breakers" => of::<NoParams>(params).and_then(|_| one(ClientMessage::Breakers)),
        "statistics" => {
            let StatisticsParams { by, name, since_s } = of(params)?;
            Ok(Asked::Statistics(StatisticsQuestion { by: by.map(Into::into), name, since_s }))
        }
        "policy/explain" => of(params).map(Asked::Explain),
        _ => {
            let shown: String = method.chars().take(SHOWN_METHOD).collect();
            Err(Refusal::new(METHOD_NOT_FOUND, format!("no method {shown:?}")))
        }
    }
}

/// Whether a method only asks, and nothing but its answer comes of it.
pub(crate) fn is_question(method: &str) -> bool {
    matches!(method, "list" | "status" | "breakers" | "statistics" | "policy/explain")
}

/// Parameters by name; none are the same as an empty object.
fn of<'a, T: Deserialize<'a>>(params: Option<&'a RawValue>) -> Result<T, Refusal> {
    let text = params.map_or("{}", RawValue::get);
    if !text.starts_with('{') {
        return Err(Refusal::params("parameters are given by name, in an object"));
    }
    serde_json::from_str(text).map_err(|error| Refusal::params(error.to_string()))
}

/// A run's id, as text on its way in.
fn run_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ExecId, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// Parameters of `list`, `status` and `breakers`: none.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParams {}

/// Parameters of `initialize`. Others are allowed and not looked at.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "for the schema: nothing of it is read")]
#[serde(rename_all = "camelCase")]
pub(crate) struct InitializeParams {
    /// Who connects, for people.
    client_info: Option<ClientInfo>,
}

#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "for the schema: nothing of it is read")]
struct ClientInfo {
    name: String,
    version: Option<String>,
}

/// Parameters of `$/cancelRequest`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct CancelRequest {
    /// The id of a request that isn't answered yet.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    id: Box<RawValue>,
}

/// Where a run's standard input comes from.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) enum StdinParam {
    /// From nowhere: it ends at once.
    #[default]
    None,
    /// From `stdin` requests.
    Stream,
    /// These bytes, then its end.
    Inline(Text),
}

impl From<StdinParam> for StdinMode {
    fn from(stdin: StdinParam) -> Self {
        match stdin {
            StdinParam::None => Self::None,
            StdinParam::Stream => Self::Stream,
            StdinParam::Inline(text) => Self::Inline(text.0),
        }
    }
}

/// Limits that may only be tighter than the policy's.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OverridesParam {
    /// Wall time, in milliseconds.
    wall_ms: Option<u64>,
    /// Processor time, in milliseconds.
    cpu_ms: Option<u64>,
    /// Time without output, in milliseconds.
    idle_ms: Option<u64>,
    /// Memory, in bytes.
    memory: Option<u64>,
    /// Processes and threads.
    processes: Option<u64>,
    /// Bytes of output.
    output: Option<u64>,
}

impl From<OverridesParam> for Overrides {
    fn from(asked: OverridesParam) -> Self {
        let OverridesParam { wall_ms, cpu_ms, idle_ms, memory, processes, output } = asked;
        Self { wall_ms, cpu_ms, idle_ms, memory, processes, output }
    }
}

/// A client's environment: an object, none of whose names stands twice.
#[derive(Debug, Clone, Default)]
struct Environment(Vec<(Bytes, Bytes)>);

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Variables;
        impl<'de> Visitor<'de> for Variables {
            type Value = Environment;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of variables")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Environment, A::Error> {
                let (mut variables, mut names) = (Vec::new(), std::collections::HashSet::new());
                while let Some((name, value)) = map.next_entry::<String, Text>()? {
                    if variables.len() == MAX_ENVIRONMENT {
                        return Err(A::Error::custom(format_args!("more than {MAX_ENVIRONMENT} variables")));
                    }
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("the variable {name:?} stands twice")));
                    }
                    variables.push((Bytes::from(name), value.0));
                }
                Ok(Environment(variables))
            }
        }
        deserializer.deserialize_map(Variables)
    }
}

/// A command: no more than a run may have, so that nobody is kept waiting while more is read.
#[derive(Debug, Default)]
struct Arguments(Vec<Bytes>);

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Arguments;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of arguments")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Arguments, A::Error> {
                let mut words = Vec::new();
                while let Some(Text(word)) = seq.next_element()? {
                    if words.len() == MAX_ARGUMENTS {
                        return Err(A::Error::custom(format_args!("more than {MAX_ARGUMENTS} arguments")));
                    }
                    words.push(word);
                }
                Ok(Arguments(words))
            }
        }
        deserializer.deserialize_seq(Words)
    }
}

/// Parameters of `exec`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExecParams {
    /// The program (looked up in the run's `PATH` unless it has a `/`) and its arguments.
    #[cfg_attr(test, schemars(with = "Vec<Text>"))]
    argv: Arguments,
    /// The policy's name.
    #[serde(default = "default_policy")]
    policy: String,
    /// The directory it works in: an absolute path, opened as the caller.
    workspace: Text,
    /// Working directory: absolute and beneath the workspace. Without it the workspace.
    #[serde(default)]
    cwd: Text,
    /// The caller's environment; the policy decides what of it arrives.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, Text>"))]
    env: Environment,
    /// Standard input.
    #[serde(default)]
    stdin: StdinParam,
    /// Limits that may only be tighter than the policy's.
    #[serde(default)]
    overrides: OverridesParam,
    /// Whether the run goes on when this connection ends.
    #[serde(default)]
    detach: bool,
    /// Whether the answer is the run's end, with its output, instead of its beginning.
    #[serde(default)]
    wait: bool,
}

fn default_policy() -> String {
    "default".to_owned()
}

impl ExecParams {
    fn asked(self) -> Asked {
        let argv = self.argv.0;
        let request = ExecRequest {
            request_id: 0,
            argv,
            environment: self.env.0,
            cwd: self.cwd.0,
            policy: self.policy,
            workspace: Workspace::Path { path: self.workspace.0 },
            overrides: self.overrides.into(),
            stdin: self.stdin.into(),
            output: OutputMode::Stream,
            detach: self.detach,
            tool: None,
        };
        Asked::Exec { request: Box::new(request), wait: self.wait }
    }
}

/// Parameters of `call`: a registered tool in place of a command and a policy.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CallParams {
    /// The tool's name.
    tool: String,
    /// What it's given: an object, as the tool's schema has it.
    #[serde(default = "no_parameters")]
    #[cfg_attr(test, schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    parameters: Box<RawValue>,
    /// The directory it works in: an absolute path, opened as the caller.
    workspace: Text,
    /// Working directory: absolute and beneath the workspace. Without it the workspace.
    #[serde(default)]
    cwd: Text,
    /// The caller's environment; the policy decides what of it arrives.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, Text>"))]
    env: Environment,
    /// Standard input.
    #[serde(default)]
    stdin: StdinParam,
    /// Limits that may only be tighter than the tool's policy's.
    #[serde(default)]
    overrides: OverridesParam,
    /// Whether the run goes on when this connection ends.
    #[serde(default)]
    detach: bool,
    /// Whether the answer is the run's end, with its output, instead of its beginning.
    #[serde(default)]
    wait: bool,
}

fn no_parameters() -> Box<RawValue> {
    // An object without a key is JSON, so there is no error to be had.
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

impl CallParams {
    fn asked(self) -> Asked {
        let command = ExecParams {
            argv: Arguments::default(),
            policy: String::new(),
            workspace: self.workspace,
            cwd: self.cwd,
            env: self.env,
            stdin: self.stdin,
            overrides: self.overrides,
            detach: self.detach,
            wait: self.wait,
        };
        let parameters = Bytes::from(self.parameters.get());
        let mut asked = command.asked();
        if let Asked::Exec { request, .. } = &mut asked {
            request.tool = Some(ToolCall { name: self.tool, parameters });
        }
        asked
    }
}

/// Parameters of `cancel`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RunParams {
    /// The run.
    #[serde(deserialize_with = "run_id")]
    #[cfg_attr(test, schemars(with = "String"))]
    exec_id: ExecId,
}

/// Parameters of `signal`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SignalParams {
    /// The run.
    #[serde(deserialize_with = "run_id")]
    #[cfg_attr(test, schemars(with = "String"))]
    exec_id: ExecId,
    /// The signal's number, 1 to 64.
    signal: u8,
}

/// Parameters of `stdin`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StdinParams {
    /// The run, one that was asked for with `"stdin": "stream"` on this connection.
    #[serde(deserialize_with = "run_id")]
    #[cfg_attr(test, schemars(with = "String"))]
    exec_id: ExecId,
    /// More of its input: at most 262144 bytes (`maxStdin`).
    data: Option<Text>,
    /// Whether that is the end.
    #[serde(default)]
    eof: bool,
}

impl StdinParams {
    fn asked(self) -> Result<Asked, Refusal> {
        let exec_id = self.exec_id;
        if let Some(length) =
            self.data.as_ref().map(|text| text.0.len()).filter(|length| *length > MAX_STDIN_CHUNK)
        {
            let text = format!(
                "`data` has {length} bytes: at most {MAX_STDIN_CHUNK} at a time; send the rest after it"
            );
            return Err(Refusal::params(text));
        }
        let data = self.data.map(|text| ClientMessage::StdinData { exec_id, bytes: text.0 });
        let end = self.eof.then_some(ClientMessage::StdinEof { exec_id });
        Ok(Asked::Messages(data.into_iter().chain(end).collect()))
    }
}

/// Parameters of `resize`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResizeParams {
    /// The run.
    #[serde(deserialize_with = "run_id")]
    #[cfg_attr(test, schemars(with = "String"))]
    exec_id: ExecId,
    /// Rows of its terminal.
    rows: u16,
    /// Columns.
    columns: u16,
}

/// Parameters of `attach`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AttachParams {
    /// The run.
    #[serde(deserialize_with = "run_id")]
    #[cfg_attr(test, schemars(with = "String"))]
    exec_id: ExecId,
    /// The last number that the client has; 0: none.
    #[serde(default)]
    after_seq: u64,
}

/// Parameters of `acknowledge`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AcknowledgeParams {
    /// The run.
    #[serde(deserialize_with = "run_id")]
    #[cfg_attr(test, schemars(with = "String"))]
    exec_id: ExecId,
    /// All events up to this number need not be kept.
    seq: u64,
}

/// Parameters of `statistics`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StatisticsParams {
    /// Of what; without it of all that the caller may see.
    by: Option<ByParam>,
    /// Of this name only; goes with `by`.
    name: Option<String>,
    /// Since when, in seconds since the epoch.
    #[serde(default)]
    since_s: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum ByParam {
    Tool,
    Policy,
    Principal,
}

impl From<ByParam> for StatisticsBy {
    fn from(by: ByParam) -> Self {
        match by {
            ByParam::Tool => Self::Tool,
            ByParam::Policy => Self::Policy,
            ByParam::Principal => Self::Principal,
        }
    }
}

/// Parameters of `policy/explain`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainParams {
    /// The policy's name.
    pub policy: String,
    /// What would be done.
    pub what: What,
    /// To what: a path (relative to the workspace), a port, a variable's name, a system call's name.
    pub thing: String,
    /// The workspace: an absolute path.
    pub workspace: Text,
    /// The caller's environment, for what is asked about a variable.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, Text>"))]
    env: Environment,
}

impl ExplainParams {
    /// The caller's environment.
    #[must_use]
    pub fn environment(&self) -> &[(Bytes, Bytes)] {
        &self.env.0
    }
}

/// What would be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Read a file.
    Read,
    /// Write one.
    Write,
    /// Execute one.
    Execute,
    /// Connect to a TCP port.
    Connect,
    /// Take connections on one.
    Bind,
    /// See a variable of the environment.
    Env,
    /// Make a system call.
    Syscall,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    fn exec(argv: usize, env: usize) -> Result<Asked, Refusal> {
        let argv = vec!["\"x\""; argv].join(",");
        let env = (0..env).map(|name| format!("\"v{name}\":\"\"")).collect::<Vec<_>>().join(",");
        let params = format!("{{\"argv\":[{argv}],\"workspace\":\"/\",\"env\":{{{env}}}}}");
        read("exec", Some(&RawValue::from_string(params).unwrap()))
    }

    #[test]
    fn arguments_and_variables_are_bounded_while_they_are_read() {
        let Ok(Asked::Exec { request, wait: false }) = exec(MAX_ARGUMENTS, MAX_ENVIRONMENT) else {
            panic!("refused")
        };
        assert_eq!((request.argv.len(), request.environment.len()), (MAX_ARGUMENTS, MAX_ENVIRONMENT));
        for (argv, env, what) in [(MAX_ARGUMENTS + 1, 0, "arguments"), (1, MAX_ENVIRONMENT + 1, "variables")]
        {
            assert!(exec(argv, env).unwrap_err().message.contains(what));
        }
    }

    #[test]
    fn a_variable_that_stands_twice_is_refused() {
        let params = r#"{"argv":["x"],"workspace":"/","env":{"A":"1","A":"2"}}"#.to_owned();
        let refusal = read("exec", Some(&RawValue::from_string(params).unwrap())).unwrap_err();
        assert!(refusal.message.contains("stands twice"), "{}", refusal.message);
    }

    #[test]
    fn a_call_is_a_request_without_a_command_and_its_parameters_stay_as_they_came() {
        let params = r#"{"tool":"t","parameters":{ "a" : [1] },"workspace":"/"}"#.to_owned();
        let asked = read("call", Some(&RawValue::from_string(params).unwrap())).unwrap();
        let Asked::Exec { request, .. } = asked else { panic!("{asked:?}") };
        assert!(request.argv.is_empty() && request.policy.is_empty());
        assert_eq!(request.tool.unwrap().parameters.to_text(), "{ \"a\" : [1] }");
    }
}
