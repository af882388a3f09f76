-- Creates the namespace where it is not there; answers with the schema version before and now.
local before = tonumber(call('HGET', HEAD, 'schema')) or 0
local fault = open()
if fault then return fault end
return { epoch, seq, before, SCHEMA }
