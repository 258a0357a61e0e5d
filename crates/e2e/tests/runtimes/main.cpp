// C++ exceptions over threads, faults from which a handler jumps out, and code that is written over while it runs.
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>
#include <atomic>
#include <sys/mman.h>

static sigjmp_buf back;
static void jump(int) { siglongjmp(back, 1); }

int main() {
    std::atomic<int> caught{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) {
        threads.emplace_back([&] {
            for (int j = 0; j < 2000; j++) {
                try { throw std::runtime_error("x"); } catch (const std::exception &) { caught++; }
            }
        });
    }
    for (auto &thread : threads) thread.join();

    stack_t own{};
    own.ss_size = 1 << 16;
    own.ss_sp = mmap(nullptr, own.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&own, nullptr);
    struct sigaction action{};
    action.sa_handler = jump;
    action.sa_flags = SA_ONSTACK;
    for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP}) sigaction(signal, &action, nullptr);
    volatile int faults = 0, zero = 0;
    for (volatile int i = 0; i < 3000; i = i + 1) {
        if (sigsetjmp(back, 1) != 0) { faults = faults + 1; continue; }
        switch (i % 3) {
        case 0: *reinterpret_cast<volatile int *>(8) = 1; break;
        case 1: faults = faults + 1 / zero; break;
        default: __builtin_trap();
        }
    }

    auto *page = static_cast<unsigned char *>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    long sum = 0;
    for (int i = 0; i < 20000; i++) {
        unsigned char code[] = {0xb8, 0, 0, 0, 0, 0xc3}; // mov eax, i; ret
        std::memcpy(code + 1, &i, 4);
        std::memcpy(page, code, sizeof code);
        sum += reinterpret_cast<int (*)()>(page)();
    }
    std::printf("c++ %d %d %ld\n", caught.load(), static_cast<int>(faults), sum);
}
