-- Runs commands confined from Neovim, by JSON-RPC with Stockade's daemon: `:luafile stockade.lua`, then `:Stockade make test`.
-- The output goes to a scratch buffer as it comes. Nothing but what Neovim has (vim.uv, vim.json, vim.base64; 0.10 or later).

local M = {}

local function bytes(data)
  return type(data) == "string" and data or vim.base64.decode(data.base64)
end

-- Runs `argv`; `on.output(stream, bytes)`, then `on.exit(outcome)` or `on.error(text)`. Returns what closes the connection, and
-- with it the run.
function M.exec(argv, on, policy)
  local path = vim.env.STOCKADE_SOCKET or ((vim.env.XDG_RUNTIME_DIR or "/run") .. "/stockade/stockade.sock")
  local pipe, waiting = vim.uv.new_pipe(false), ""
  local over = false
  local function close()
    over = true
    if not pipe:is_closing() then pipe:close() end
  end
  local function ask(id, method, params)
    local message = { jsonrpc = "2.0", id = id, method = method, params = params }
    pipe:write(vim.json.encode(message) .. "\n")
  end
  local function take(message)
    local params = message.params
    if message.error then on.error(message.error.message) close()
    elseif message.method == "run/output" then on.output(params.stream, bytes(params.data))
    elseif message.method == "run/exited" then on.exit(params.outcome) close() end
  end
  pipe:connect(path, function(refused)
    if refused then on.error(refused) return close() end
    pipe:read_start(function(broken, chunk)
      if broken or not chunk then
        if not over then on.error(broken or "the daemon has closed the connection") end
        return close()
      end
      waiting = waiting .. chunk
      for line in waiting:gmatch("(.-)\n") do take(vim.json.decode(line)) end
      waiting = waiting:match("[^\n]*$")
    end)
    ask(1, "initialize", { clientInfo = { name = "neovim" } })
    local env = { PATH = vim.uv.os_getenv("PATH"), HOME = vim.uv.os_getenv("HOME") }
    ask(2, "exec", { argv = argv, policy = policy or "default", workspace = vim.uv.cwd(), env = env })
  end)
  return close
end

vim.api.nvim_create_user_command("Stockade", function(command)
  local buffer = vim.api.nvim_create_buf(true, true)
  vim.api.nvim_set_current_buf(buffer)
  local function append(text)
    vim.schedule(function() vim.api.nvim_buf_set_text(buffer, -1, -1, -1, -1, vim.split(text, "\n", { plain = true })) end)
  end
  M.exec(command.fargs, {
    output = function(_, text) append(text) end,
    exit = function(outcome) append(("\n[%s %s]"):format(outcome.kind, outcome.code or "")) end,
    error = function(text) append("stockade: " .. text) end,
  })
end, { nargs = "+", complete = "shellcmd" })

return M
