// Gradients of vertices that are added up over the pixels of an image, by several threads on the CPU: each takes a part of the vertices and
// looks at all pixels for those that move them. A pixel on the border of two parts is worked out twice; that costs less than sums for each
// thread, to be cleared and added, would. To every vertex its pixels are added in the order of the image: no bit depends on the parts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/macros.h"
#include "common/parallel.h"

namespace focus {

// Vertices [begin, end) of an image.
struct VertexPart {
    int64_t begin, end;
    bool first, whole;  // of the image's parts; the only one

    FOCUS_HD int64_t size() const { return end - begin; }
    FOCUS_HD bool has(int32_t vertex) const { return whole || (vertex >= begin && vertex < end); }
    FOCUS_HD bool has_corner_of(int32_t const* face) const { return whole || has(face[0]) || has(face[1]) || has(face[2]); }
};

class VertexParts {
  public:
    // face_at(b, i) points to the vertices of the face that pixel i < pixels of image b shows; nullptr where there is none.
    template <typename FaceAt>
    VertexParts(int64_t batch, int64_t pixels, int64_t vertex_count, int threads, FaceAt const& face_at) {
        constexpr int64_t kMostParts = 16, kSampled = 61;  // every so manieth pixel, not one below the other
        constexpr double kNanoseconds = 10.0;              // for a pixel, roughly
        bool const shared_out = batch > 0 && batch < worthwhile_threads(threads, kNanoseconds * static_cast<double>(pixels));
        per_image_ = shared_out ? std::min<int64_t>(kMostParts, (threads + batch - 1) / batch) : 1;
        limits_.assign(batch * (per_image_ + 1), vertex_count);
        std::vector<int32_t> shown;
        for (int64_t b = 0; b < batch; ++b) {
            int64_t* const limits = limits_.data() + b * (per_image_ + 1);
            limits[0] = 0;
            if (per_image_ == 1) continue;
            shown.clear();
            for (int64_t i = 0; i < pixels; i += kSampled) {
                if (int32_t const* const face = face_at(b, i)) shown.push_back(face[0]);
            }
            std::sort(shown.begin(), shown.end());
            int64_t const count = static_cast<int64_t>(shown.size());
            for (int64_t k = 1; k < per_image_ && count > 0; ++k) limits[k] = shown[count * k / per_image_];
        }
    }

    // A task for each part of each image.
    int64_t count() const { return static_cast<int64_t>(limits_.size()) / (per_image_ + 1) * per_image_; }
    int64_t image(int64_t task) const { return task / per_image_; }
    VertexPart part(int64_t task) const {
        int64_t const* const limits = limits_.data() + task + image(task);
        return {limits[0], limits[1], task % per_image_ == 0, per_image_ == 1};
    }

  private:
    int64_t per_image_;
    std::vector<int64_t> limits_;  // [B, per_image + 1]
};

// The same where pixels have the index of a face, or less than 0.
template <typename Parameters>
VertexParts parts_of_shown_vertices(Parameters const& p, int64_t vertex_count, int threads) {
    return {p.face_index.size[0], p.face_index.stride(), vertex_count, threads, [&](int64_t b, int64_t i) -> int32_t const* {
                int32_t const f = p.face_index.data[b * p.face_index.stride() + i];
                return f < 0 ? nullptr : p.faces.data + int64_t(3) * f;
            }};
}

}  // namespace focus
