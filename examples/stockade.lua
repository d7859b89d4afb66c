-- Runs commands confined from Neovim, by JSON-RPC with Stockade's daemon: `:luafile stockade.lua`, then `:Stockade make test`.
-- The output goes to a scratch buffer as it comes. Nothing but what Neovim has, 0.7 or later.
local M = {}

local uv = vim.uv or vim.loop

local function bytes(data)
  if type(data) == "string" then return data end
  local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local value, bits, decoded = 0, 0, ""
  for letter in data.base64:gmatch("[^=]") do
    value, bits = value % 256 * 64 + letters:find(letter, 1, true) - 1, bits + 6
    if bits >= 8 then bits, decoded = bits - 8, decoded .. string.char(math.floor(value / 2 ^ (bits - 8)) % 256) end
  end
  return decoded
end

-- `on.output(stream, bytes)`, then `on.exit(outcome)` or `on.error(text)`. Returns what closes the connection, and ends the run.
function M.exec(argv, on, policy)
  local path = vim.env.STOCKADE_SOCKET or ((vim.env.XDG_RUNTIME_DIR or "/run") .. "/stockade/stockade.sock")
  local pipe, waiting, over = uv.new_pipe(false), "", false
  local function close()
    over = true
    if not pipe:is_closing() then pipe:close() end
  end
  local function ask(id, method, params)
    pipe:write(vim.json.encode({ jsonrpc = "2.0", id = id, method = method, params = params }) .. "\n")
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
    local env = { PATH = uv.os_getenv("PATH"), HOME = uv.os_getenv("HOME") }
    ask(2, "exec", { argv = argv, policy = policy or "default", workspace = uv.cwd(), env = env })
  end)
  return close
end

vim.api.nvim_create_user_command("Stockade", function(command)
  local buffer = vim.api.nvim_create_buf(true, true)
  vim.api.nvim_set_current_buf(buffer)
  local function append(text)
    vim.schedule(function()
      text = vim.api.nvim_buf_get_lines(buffer, -2, -1, false)[1] .. text
      vim.api.nvim_buf_set_lines(buffer, -2, -1, false, vim.split(text, "\n", { plain = true }))
    end)
  end
  M.exec(command.fargs, {
    output = function(_, text) append(text) end,
    exit = function(outcome) append(("\n[%s %s]"):format(outcome.kind, outcome.code or "")) end,
    error = function(text) append("stockade: " .. text) end,
  })
end, { nargs = "+", complete = "shellcmd" })

return M
