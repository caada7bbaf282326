// The trial that decides whether tiles are used, on emulated ones.

#include "tile_trial.h"

#include "cases.h"

int main() {
    if (!can_run("amx")) {
        std::printf("0 cases\n");
        return 0;
    }
    if (!phi4::tiles_agree()) {
        std::printf("tiles give other results than vectors\n");
        return 1;
    }
    std::printf("1 cases\n");
}
