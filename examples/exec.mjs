#!/usr/bin/env node
// Runs a command confined, by JSON-RPC with Stockade's daemon, in the framing of editors (Content-Length).
//
//   examples/exec.mjs [-p POLICY] COMMAND [ARGUMENT]...
//
// The command's output comes as it is written, its exit status is ours; 125: there is none. Nothing but Node's own modules.
// Arguments and variables have to be text: Node shows us others changed.

import net from "node:net";

const argv = process.argv.slice(2);
const policy = argv[0] === "-p" ? argv.splice(0, 2)[1] : "default";
const path = process.env.STOCKADE_SOCKET ?? `${process.env.XDG_RUNTIME_DIR ?? "/run"}/stockade/stockade.sock`;
const connection = net.connect(path);
// Until the run's own is known.
process.exitCode = 125;

const ask = (id, method, params) => {
  const body = Buffer.from(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
  connection.write(`Content-Length: ${body.length}\r\n\r\n`);
  connection.write(body);
};
// A string, or an object with base64.
const bytes = (data) => (typeof data === "string" ? Buffer.from(data) : Buffer.from(data.base64, "base64"));

const end = (status, text) => {
  if (text) console.error(`exec.mjs: ${text}`);
  process.exitCode = status;
  connection.destroy();
};

const take = ({ method, params, error }) => {
  if (error) return end(125, error.message);
  if (method === "run/output") process[params.stream].write(bytes(params.data));
  if (method === "run/exited") {
    const { code, signal } = params.outcome;
    end(code ?? (signal ? 128 + signal : 125));
  }
};

let waiting = Buffer.alloc(0);
connection.on("data", (chunk) => {
  waiting = Buffer.concat([waiting, chunk]);
  for (;;) {
    const header = waiting.indexOf("\r\n\r\n");
    if (header < 0) return;
    const length = Number(/content-length: *(\d+)/i.exec(waiting.subarray(0, header).toString())[1]);
    if (waiting.length < header + 4 + length) return;
    const body = waiting.subarray(header + 4, header + 4 + length);
    waiting = waiting.subarray(header + 4 + length);
    take(JSON.parse(body.toString()));
  }
});
connection.on("error", (error) => end(125, error.message));
connection.on("end", () => end(125, "the daemon has closed the connection"));

ask(1, "initialize", { clientInfo: { name: "exec.mjs" } });
ask(2, "exec", { argv, policy, workspace: process.cwd(), env: process.env });
