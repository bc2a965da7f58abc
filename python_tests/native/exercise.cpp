#include "exercise.h"

#include <tuple>
#include <utility>

#include "common/parallel.h"
#include "common/simd.h"

namespace focus::exercise {

int failures = 0;

namespace {

std::vector<std::pair<char const*, void (*)()>>& registered() {
    static std::vector<std::pair<char const*, void (*)()>> list;
    return list;
}

}  // namespace

Exercise::Exercise(char const* name, void (*run)()) { registered().push_back({name, run}); }

Mesh::Mesh() {
    std::vector<float> const noise = random_floats(kBatch * kVertices * 3, -1.0f, 1.0f, 7);
    for (int64_t b = 0; b < kBatch; ++b) {
        for (int64_t v = 0; v < kVertices; ++v) {
            float* const vertex = vertices.data() + 3 * (b * kVertices + v);
            float const* const shift = noise.data() + 3 * (b * kVertices + v);
            if (v < kSide * kSide) {
                vertex[0] = (4.0f + 3.0f * (v % kSide) + shift[0]) * kScale;
                vertex[1] = (3.0f + 3.0f * (v / kSide) + shift[1]) * kScale;
                vertex[2] = 900.0f + 20.0f * shift[2];
            } else {
                int64_t const corner = (v - kSide * kSide) % 4;
                vertex[0] = corner % 2 ? kWidth + 3.0f : 1.5f + shift[0];  // leaves the first column to the background
                vertex[1] = corner / 2 ? kHeight + 2.0f : -4.0f + shift[1];
                vertex[2] = 1000.0f + 10.0f * shift[2];
            }
        }
        vertices[3 * (b * kVertices + kVertices - 1)] = NAN;
    }
    int32_t* face = faces.data();
    auto const quad = [&](int32_t a, int32_t b, int32_t c, int32_t d) {
        for (int32_t const v : {a, b, c, c, b, d}) *face++ = v;
    };
    for (int32_t first : {kSide * kSide, kSide * kSide + 4}) quad(first, first + 1, first + 2, first + 3);
    for (int32_t y = 0; y + 1 < kSide; ++y) {
        for (int32_t x = 0; x + 1 < kSide; ++x) {
            int32_t const v = y * kSide + x;
            quad(v, v + 1, v + kSide, v + kSide + 1);
        }
    }
    if (build_topology_cpu({faces.input(kFaces, 3), kVertices, offsets.view(kVertices + 1), corners.view(3 * kFaces)}) != 0) {
        std::abort();
    }
}

namespace {

// When loops are shared out among threads: on a machine where that does not pay it is tried less and less often, and again where it pays.
void run_sharing() {
    SharingPays pays;
    constexpr double kWork = 0.003;
    auto const lost = [&](double now) { pays.learn(now, 2 * kWork, kWork); };
    expect(pays.at(0.0), "shared out at first");
    pays.learn(1.0, 0.6 * kWork, kWork);
    expect(pays.at(1.0), "shared out where it pays");
    lost(2.0);
    expect(!pays.at(2.019) && pays.at(2.021), "not for 20 ms after it did not");
    lost(3.0);
    expect(!pays.at(3.039) && pays.at(3.041), "then for twice as long");
    for (int i = 0; i < 20; ++i) lost(4.0);
    expect(!pays.at(4.99) && pays.at(5.01), "at most a second");
    pays.learn(6.0, kWork, kWork);
    lost(7.0);
    expect(!pays.at(7.019) && pays.at(7.021), "and as at first after it paid");
}

Exercise const sharing("sharing out", run_sharing);

}  // namespace

}  // namespace focus::exercise

int main() {
    using namespace focus::exercise;
    // With AVX-512 and AVX2 as far as the processor has them, and with neither.
    bool const has_avx2 = focus::uses_avx2(), has_avx512 = focus::uses_avx512();
    for (auto const& [avx2, avx512, code] : {std::tuple{true, true, "AVX-512"}, {true, false, "AVX2"}, {false, false, "baseline"}}) {
        if ((avx2 && !has_avx2) || (avx512 && !has_avx512)) continue;
        focus::uses_avx2() = avx2;
        focus::uses_avx512() = avx512;
        std::printf("With %s vector code:\n", code);
        for (auto const& [name, run] : registered()) {
            std::printf("%s\n", name);
            run();
        }
    }
    if (failures) std::printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
