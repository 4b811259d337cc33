"""Search spaces: YAML whose nesting is the recipe's, checked as a whole, drawn by Optuna.

    learning_rate: {float: [1e-5, 1e-2], log: true}
    image_size: {ordered: [128, 192, 256]}
    optimizer:
      choice:
        adamw: {beta2: {choice: [0.99, 0.999]}}
        sgd:
          momentum: {float: [0.8, 0.95]}
          learning_rate: {float: [1e-3, 1e-1], log: true}

A parameter inside a branch exists only when the branch is taken, and its Optuna name says so
(`optimizer.sgd.momentum`). A branch may set a plain top-level field of the recipe that is no field of its own, such
as `learning_rate` above, or the augmentation: it is *lifted* to the top level there, and the top level's own node
serves the branches that do not. An `ordered` parameter is stored as an index; `Space.decode_params` gives its value.
"""
