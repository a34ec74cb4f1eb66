"""Any grid of settings: every model and optimizer flag takes a comma-separated list.

python -m experiments.grid --kernel_size=1,3,5 --padding=valid,same --stride=1,2 --seeds=3 --skip_invalid

27 runs: 9 of these 12 arms are possible, 3 seeds. Add --dry_run to see the arms of your own grid.
"""

from convjax.studies.study import Study, run

STUDY = Study(
    name="grid",
    question="How does test accuracy depend on the fields of this grid?",
    reading=(
        "The arms are all combinations of the given values. The first is the baseline that the others are compared "
        "with, paired by seed. All other fields are the same in every arm. The table shows parameters and FLOPs, which "
        "--match=params or --match=flops equalizes."
    ),
)

if __name__ == "__main__":
    run(STUDY)
