-- Errors that unwind compiled code, and code that is compiled while the program runs.
local caught, sum = 0, 0
for i = 1, 20000 do
  if not pcall(function() return nil + i end) then caught = caught + 1 end
end
for i = 1, 300 do sum = sum + loadstring("return " .. i)() end
for i = 1, 5000000 do sum = sum + i % 3 end
print("luajit " .. caught .. " " .. sum .. " " .. (jit.status() and "compiled" or "interpreted"))
