-- @description Separate the selected items into stems with bsmamba2
-- @version 1.0
-- @author bsmamba2
-- @about
--   Separates each selected item. Every stem of the model goes onto a new track below it, at its
--   position, with its trim, speed, fades and volume; the item itself is muted. All of this is one
--   undo step. `bsmamba2 separate` runs in the background and separates each source once, into the
--   project's folder "stems". Esc, the button or closing the window cancels it, and then nothing
--   changes. If bsmamba2 is not on the PATH, enter its path in the dialog:
--   `which bsmamba2` in a terminal prints it. Linux and macOS.

local TITLE = "Separate selected items"
local SECTION = "bsmamba2"
local COLOURS = {
  vocals = { 233, 120, 90 }, instrumental = { 90, 140, 200 }, drums = { 200, 170, 80 },
  bass = { 130, 110, 190 }, guitar = { 110, 170, 110 }, piano = { 190, 110, 150 },
}
local OTHER_COLOUR = { 150, 150, 150 }

-- The selection

--- Returns the item's take, source file and offset in it; or nil and the reason.
local function describe(item)
  local take = reaper.GetActiveTake(item)
  if not take or reaper.TakeIsMIDI(take) then return nil, "an item has no audio" end
  local source = reaper.GetMediaItemTake_Source(take)
  local offset = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS")
  local is_section, start, _, is_reversed = reaper.PCM_Source_GetSectionInfo(source)
  if is_section then
    if is_reversed then return nil, "a reversed item cannot be separated: glue it first" end
    offset = offset + start
    source = reaper.GetMediaSourceParent(source)
  end
  local file = source and reaper.GetMediaSourceFileName(source, "") or ""
  if file == "" then return nil, "an item has no file: glue it first" end
  return { item = item, take = take, file = file, offset = offset }
end

local function selected()
  local jobs, problems = {}, {}
  for i = 0, reaper.CountSelectedMediaItems(0) - 1 do
    local job, problem = describe(reaper.GetSelectedMediaItem(0, i))
    if job then jobs[#jobs + 1] = job else problems[#problems + 1] = problem end
  end
  return jobs, problems
end

local SETTINGS = { "model", "device", "command" }
local QUESTIONS = "Model (empty: the shipped model),Device (empty: auto)," ..
  "Path of bsmamba2 (empty: on the PATH),extrawidth=300,separator=\n"

--- Asks the user for the settings, and keeps them; returns nil if the dialog was closed.
local function ask()
  local settings, before = {}, {}
  for i, name in ipairs(SETTINGS) do before[i] = reaper.GetExtState(SECTION, name) end
  local ok, answer = reaper.GetUserInputs(TITLE, #SETTINGS, QUESTIONS, table.concat(before, "\n"))
  if not ok then return nil end
  local values = (answer .. "\n"):gmatch("(.-)\n")
  for _, name in ipairs(SETTINGS) do
    settings[name] = (values() or ""):match("^%s*(.-)%s*$")
    reaper.SetExtState(SECTION, name, settings[name], true)
  end
  return settings
end

-- Separating, in the background

local function quoted(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

local function read(path)
  local file = io.open(path)
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local ENDINGS = { "", ".out", ".err", ".done", ".pid", ".cancel", ".kill" }

--- Runs a script of the shell without waiting for it.
local function run_in_background(path) reaper.ExecProcess('/bin/sh "' .. path .. '"', -2) end

--- The command as a list of quoted words.
local function command_line(file, folder, settings)
  local command = settings.command:gsub("^~/", (os.getenv("HOME") or "~") .. "/")
  local words = { command ~= "" and command or "bsmamba2", "separate", file, "-o", folder }
  for _, name in ipairs({ "model", "device" }) do
    if settings[name] ~= "" then
      words[#words + 1], words[#words + 2] = "--" .. name, settings[name]
    end
  end
  for i, word in ipairs(words) do words[i] = quoted(word) end
  return table.concat(words, " ")
end

-- The inner shell states its number, which is that of bsmamba2 after exec, and looks whether the
-- work was cancelled before it did.
local SCRIPT = [[
PATH=$PATH:$HOME/.local/bin
PREFIX=%s
export PREFIX
sh -c 'echo $$ >"$PREFIX.pid"; [ -e "$PREFIX.cancel" ] || exec "$@"' sh %s >"$PREFIX.out" 2>"$PREFIX.err"
status=$?
if [ -e "$PREFIX.cancel" ]; then
  rm -rf %s
  rm -f "$PREFIX" "$PREFIX".out "$PREFIX".err "$PREFIX".pid "$PREFIX".kill "$PREFIX".cancel
else
  echo $status >"$PREFIX.done.part" && mv "$PREFIX.done.part" "$PREFIX.done"
fi
]]

--- Starts bsmamba2 on a file. Returns a function to poll, which returns nil while bsmamba2 runs,
--- then { stems = { { name = …, path = … }, … } } or { error = message }; and a function that
--- cancels the work and removes what the whole run has written.
local function separate(file, run_folder, number, settings)
  local prefix, folder = os.tmpname(), ("%s/%d"):format(run_folder, number)
  write(prefix, SCRIPT:format(
    quoted(prefix), command_line(file, folder, settings), quoted(run_folder)))
  run_in_background(prefix)

  local function poll()
    local status = tonumber(read(prefix .. ".done"))
    if not status then return nil end
    local paths, message = read(prefix .. ".out") or "", read(prefix .. ".err") or ""
    for _, ending in ipairs(ENDINGS) do os.remove(prefix .. ending) end
    if status == 127 then
      return { error = "bsmamba2 was not found. Run this again and enter its path: " ..
        "`which bsmamba2` in a terminal prints it." }
    elseif status ~= 0 then
      return { error = message ~= "" and message or "bsmamba2 ended with status " .. status }
    end
    local stems, song = {}, file:match("([^/\\]+)%.[^.]*$") or file:match("[^/\\]+$")
    for path in paths:gmatch("[^\n]+") do
      local name = path:match("([^/\\]+)%.[^.]*$")
      if name:sub(1, #song + 1) == song .. "_" then
        stems[#stems + 1] = { name = name:sub(#song + 2), path = path }
      end
    end
    return { stems = stems }
  end

  local function cancel()
    write(prefix .. ".cancel", "")
    write(prefix .. ".kill", ('kill "$(cat %s)" 2>/dev/null\ntrue\n'):format(quoted(prefix .. ".pid")))
    run_in_background(prefix .. ".kill")
  end

  return poll, cancel
end

-- Placing the stems

local function track_below(track, place, name)
  local index = reaper.GetMediaTrackInfo_Value(track, "IP_TRACKNUMBER") + place - 1
  reaper.InsertTrackAtIndex(index, true)
  local below = reaper.GetTrack(0, index)
  local _, track_name = reaper.GetSetMediaTrackInfo_String(track, "P_NAME", "", false)
  reaper.GetSetMediaTrackInfo_String(below, "P_NAME", (track_name ~= "" and track_name .. " – " or "") .. name, true)
  local colour = COLOURS[name] or OTHER_COLOUR
  reaper.SetTrackColor(below, reaper.ColorToNative(table.unpack(colour)) | 0x1000000)
  return below
end

local ITEM_VALUES = { "D_POSITION", "D_LENGTH", "D_VOL", "D_FADEINLEN", "D_FADEOUTLEN", "D_SNAPOFFSET" }
local TAKE_VALUES = { "D_PLAYRATE", "D_PITCH", "B_PPITCH", "D_VOL", "D_PAN" }

local function place_stem(job, stem, track)
  local item = reaper.AddMediaItemToTrack(track)
  local take = reaper.AddTakeToMediaItem(item)
  reaper.SetMediaItemTake_Source(take, reaper.PCM_Source_CreateFromFile(stem.path))
  for _, name in ipairs(ITEM_VALUES) do
    reaper.SetMediaItemInfo_Value(item, name, reaper.GetMediaItemInfo_Value(job.item, name))
  end
  for _, name in ipairs(TAKE_VALUES) do
    reaper.SetMediaItemTakeInfo_Value(take, name, reaper.GetMediaItemTakeInfo_Value(job.take, name))
  end
  reaper.SetMediaItemTakeInfo_Value(take, "D_STARTOFFS", job.offset)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_NAME", stem.name, true)
end

local function place_all(jobs, results)
  reaper.Undo_BeginBlock()
  reaper.PreventUIRefresh(1)
  local tracks = {}  -- the new tracks, by track and name of the stem
  for _, job in ipairs(jobs) do
    local track = reaper.GetMediaItemTrack(job.item)
    tracks[track] = tracks[track] or {}
    for place, stem in ipairs(results[job.file].stems or {}) do
      tracks[track][stem.name] = tracks[track][stem.name] or track_below(track, place, stem.name)
      place_stem(job, stem, tracks[track][stem.name])
      reaper.SetMediaItemInfo_Value(job.item, "B_MUTE", 1)
    end
  end
  reaper.PreventUIRefresh(-1)
  reaper.UpdateArrange()
  reaper.Undo_EndBlock(TITLE, -1)
end

-- The run

local BUTTON = { x = 308, y = 34, width = 80, height = 22 }

local function show(done, all, file, seconds)
  gfx.set(1, 1, 1)
  gfx.rect(BUTTON.x, BUTTON.y, BUTTON.width, BUTTON.height, false)
  gfx.x, gfx.y = BUTTON.x + 18, BUTTON.y + 4
  gfx.drawstr("Cancel")
  gfx.x, gfx.y = 12, 12
  gfx.drawstr(("%d of %d: %s, %.0f s"):format(done + 1, all, file:match("[^/\\]+$"), seconds))
  gfx.rect(12, 40, 280, 10, false)
  gfx.rect(12, 40, 280 * done / all, 10, true)
  gfx.update()
end

--- Whether the user closed the window, pressed Esc or clicked the button.
local function is_cancelled()
  local key = gfx.getchar()
  local x, y = (gfx.mouse_x or 0) - BUTTON.x, (gfx.mouse_y or 0) - BUTTON.y
  local is_on_button = x >= 0 and y >= 0 and x < BUTTON.width and y < BUTTON.height
  return key < 0 or key == 27 or ((gfx.mouse_cap or 0) & 1 == 1 and is_on_button)
end

local function main()
  local jobs, problems = selected()
  if #jobs == 0 then
    return reaper.MB(problems[1] or "Select one or more items with audio first.", TITLE, 0)
  end
  local settings = ask()
  if not settings then return end
  -- One folder per run and song, so that no stems are overwritten.
  local folder = reaper.GetProjectPath("") .. "/stems/" .. os.date("%Y%m%d-%H%M%S")
  reaper.RecursiveCreateDirectory(folder, 0)

  local files, results = {}, {}
  for _, job in ipairs(jobs) do
    if not results[job.file] then
      files[#files + 1] = job.file
      results[job.file] = {}
    end
  end

  local function finish()
    gfx.quit()
    for _, file in ipairs(files) do
      if results[file].error then problems[#problems + 1] = results[file].error end
    end
    place_all(jobs, results)
    if #problems > 0 then reaper.MB(table.concat(problems, "\n"), TITLE, 0) end
  end

  gfx.init(TITLE, 400, 64)
  local current, started, poll, cancel = 0, 0, nil, nil
  local function step()
    if not poll then
      current, started = current + 1, reaper.time_precise()
      poll, cancel = separate(files[current], folder, current, settings)
    end
    if is_cancelled() then return gfx.quit() end  -- the script ends, and so cancels the work
    show(current - 1, #files, files[current], reaper.time_precise() - started)
    local result = poll()
    if result then results[files[current]], poll, cancel = result, nil, nil end
    if result and current == #files then return finish() end
    reaper.defer(step)
  end
  -- Also when Reaper is closed or the script is ended.
  reaper.atexit(function() if cancel then cancel() end end)
  step()
end

main()
