"""Mini's learned parts and their card (`models/mini`).

`python -m recipes.mini` trains one seed; the other commands:

    python -m recipes.mini.demo_set       the spoken set of `undersong demo --model mini`
    python -m recipes.mini.release        several seeds' cards together, and the parts of the seed that ships
    python -m recipes.mini.card_check     the card beside 60 of its prompts, asked again (`make nightly`)
"""
