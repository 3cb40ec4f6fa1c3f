-- @description Separate the selected items into vocals and instrumental with bsmamba2
-- @about
--   Separates each selected item. The stems go onto new tracks below it, at its position, with its
--   trim, speed, fades and volume; the item itself is muted. All of this is one undo step.
--   `bsmamba2 separate` separates each source once, into the project's folder "stems".
--   Linux and macOS.

local TITLE = "Separate selected items"
local SECTION = "bsmamba2"
local COLOURS = { vocals = { 233, 120, 90 }, instrumental = { 90, 140, 200 } }
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

--- Asks the user for model and device; returns nil if the dialog was closed.
local function ask()
  local before = reaper.GetExtState(SECTION, "model") .. "," .. reaper.GetExtState(SECTION, "device")
  local ok, answer = reaper.GetUserInputs(
    TITLE, 2, "Model (empty: the shipped model),Device (empty: auto),extrawidth=200", before)
  if not ok then return nil end
  local model, device = answer:match("^(.-),([^,]*)$")
  reaper.SetExtState(SECTION, "model", model, true)
  reaper.SetExtState(SECTION, "device", device, true)
  return model, device
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

--- Starts bsmamba2 on a file and returns a function to poll. That function returns nil while
--- bsmamba2 runs, then { stems = { { name = …, path = … }, … } } or { error = message }.
local function separate(file, folder, model, device)
  local prefix = os.tmpname()
  local words = { reaper.GetExtState(SECTION, "command"), "separate", file, "-o", folder }
  if words[1] == "" then words[1] = "bsmamba2" end
  if model ~= "" then words[#words + 1], words[#words + 2] = "--model", model end
  if device ~= "" then words[#words + 1], words[#words + 2] = "--device", device end
  for i, word in ipairs(words) do words[i] = quoted(word) end
  local command = table.concat(words, " ")
  local out, err, done = quoted(prefix .. ".out"), quoted(prefix .. ".err"), quoted(prefix .. ".done")
  write(prefix, ("PATH=$PATH:$HOME/.local/bin\n%s >%s 2>%s\necho $? >%s.part\nmv %s.part %s\n"):format(
    command, out, err, done, done, done))
  reaper.ExecProcess('/bin/sh "' .. prefix .. '"', -2)

  return function()
    local status = read(prefix .. ".done")
    if not status then return nil end
    local paths, message = read(prefix .. ".out") or "", read(prefix .. ".err") or ""
    for _, ending in ipairs({ "", ".out", ".err", ".done" }) do os.remove(prefix .. ending) end
    if tonumber(status) ~= 0 then return { error = message } end
    local stems, song = {}, file:match("([^/\\]+)%.[^.]*$") or file:match("[^/\\]+$")
    for path in paths:gmatch("[^\n]+") do
      local name = path:match("([^/\\]+)%.[^.]*$")
      if name:sub(1, #song + 1) == song .. "_" then
        stems[#stems + 1] = { name = name:sub(#song + 2), path = path }
      end
    end
    return { stems = stems }
  end
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

local function show(done, all, file, seconds)
  gfx.x, gfx.y = 12, 12
  gfx.set(1, 1, 1)
  gfx.drawstr(("%d of %d: %s, %.0f s"):format(done + 1, all, file:match("[^/\\]+$"), seconds))
  gfx.rect(12, 40, 376, 10, false)
  gfx.rect(12, 40, 376 * done / all, 10, true)
  gfx.update()
end

local function main()
  local jobs, problems = selected()
  if #jobs == 0 then
    return reaper.MB(problems[1] or "Select one or more items with audio first.", TITLE, 0)
  end
  local model, device = ask()
  if not model then return end
  local folder, run = reaper.GetProjectPath("") .. "/stems", os.date("%Y%m%d-%H%M%S")
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
  local current, poll, started = 0, nil, 0
  local function step()
    if gfx.getchar() < 0 then return end  -- the window was closed; bsmamba2 finishes by itself
    if not poll then
      current, started = current + 1, reaper.time_precise()
      -- One folder per run and song, so that no stems are overwritten.
      poll = separate(files[current], ("%s/%s_%d"):format(folder, run, current), model, device)
    end
    show(current - 1, #files, files[current], reaper.time_precise() - started)
    local result = poll()
    if result then results[files[current]], poll = result, nil end
    if result and current == #files then return finish() end
    reaper.defer(step)
  end
  step()
end

main()
