<?php
// Exceptions, a loop that is compiled while it runs, and whether it was.
function work(int $n): int {
    $sum = 0;
    for ($i = 0; $i < $n; $i++) {
        $sum += $i % 7;
    }
    return $sum;
}
$caught = 0;
for ($i = 0; $i < 20000; $i++) {
    try {
        intdiv($i, 0);
    } catch (DivisionByZeroError) {
        $caught++;
    }
}
$sum = 0;
for ($i = 0; $i < 200; $i++) {
    $sum += work(5000);
}
$compiled = opcache_get_status(false)['jit']['on'] ? 'compiled' : 'interpreted';
echo "php $caught $sum $compiled\n";
