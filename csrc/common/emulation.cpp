#include "common/emulation.h"

namespace focus::emulation {

void run(unsigned int blocks, unsigned int threads, std::function<void()> const& kernel) {
    static std::mutex one_launch;  // static __shared__ memory belongs to one block of one launch at a time
    std::lock_guard<std::mutex> guard(one_launch);
    Block block(threads);
    std::vector<std::thread> team;
    team.reserve(threads);
    for (unsigned int thread = 0; thread < threads; ++thread) {
        team.emplace_back([&, thread] {
            current_block = &block;
            threadIdx.x = thread;
            blockDim.x = threads;
            gridDim.x = blocks;
            for (unsigned int index = 0; index < blocks; ++index) {
                blockIdx.x = index;
                kernel();
                block.barrier.wait();  // no thread enters the next block while another still reads this one's shared memory
            }
        });
    }
    for (std::thread& member : team) member.join();
}

}  // namespace focus::emulation
