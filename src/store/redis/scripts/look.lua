-- One session by its id: the record, the log's head, and the time to judge by.
local fault = open()
if fault then return fault end
return { epoch, seq, int(NOW), alive(arg(1)) or false }
